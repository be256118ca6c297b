//! How to trust the local CA, in words for a terminal. Touches nothing.

use std::path::Path;

/// Commands for the usual systems, ready to paste.
#[must_use]
pub fn how_to_trust(root: &Path) -> String {
    let root = quoted(root);
    format!(
        "\
The root certificate of this relais is {root}

Debian, Ubuntu (curl, wget, most programs):
    sudo cp {root} /usr/local/share/ca-certificates/relais-local-ca.crt && sudo update-ca-certificates

Chrome and Chromium on Linux (package libnss3-tools):
    certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n 'relais local CA' -i {root}

macOS:
    sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain {root}

Firefox:
    Settings, Privacy & Security, Certificates, View Certificates, Authorities, Import: choose the file,
    tick \"Trust this CA to identify websites\"

One curl call, trusting nothing for good:
    curl --cacert {root} https://HOST/

Whoever holds root.key beside it can sign for any name on the machines that trust it: keep it on this one.
"
    )
}

/// Quoted for a shell where it must be.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(plain) && !text.is_empty() { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_survive_a_shell() {
        assert_eq!(quoted(Path::new("/var/lib/relais/internal-ca/root.crt")), "/var/lib/relais/internal-ca/root.crt");
        assert_eq!(quoted(Path::new("/home/a b/it's.crt")), r"'/home/a b/it'\''s.crt'");
    }

    #[test]
    fn every_system_is_told_the_file() {
        let words = how_to_trust(Path::new("/s/root.crt"));
        for system in
            ["update-ca-certificates", "security add-trusted-cert", "Firefox", "curl --cacert /s/root.crt", "certutil"]
        {
            assert!(words.contains(system), "{system} is missing in:\n{words}");
        }
    }
}

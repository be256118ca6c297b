//! Folders of Caddy and certbot: the one was written by Debian's caddy, the other is laid out as certbot's manual says.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};

use relais_tls::takeover::{Found, is_of, read};

const DIRECTORY: &str = "https://127.0.0.1:24000/dir";

fn caddy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/takeover/caddy")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

fn files(found: &Found) -> Vec<&str> {
    found.certificates.iter().map(|one| one.file.file_name().unwrap().to_str().unwrap()).collect()
}

#[test]
fn the_data_of_a_caddy_is_read() {
    let found = read(&caddy()).unwrap();
    assert_eq!(files(&found), ["a.fr.crt", "www.a.fr.crt"], "its own CA is left out");
    for one in &found.certificates {
        assert!(one.chain_pem.matches("BEGIN CERTIFICATE").count() == 2 && one.key_pem.expose().contains("EC PRIVATE"));
        assert!(is_of(&one.origin, DIRECTORY) && !is_of(&one.origin, "https://127.0.0.1:14000/dir"));
    }
    let [account] = &found.accounts[..] else { panic!("{found:?}") };
    assert_eq!(account.url, "https://127.0.0.1:24000/my-account/29e876d7647db439");
    assert!(is_of(&account.origin, DIRECTORY) && account.key_pem.expose().contains("EC PRIVATE KEY"));
    assert_eq!(found.left, []);
    // Whatever folder of it is named.
    assert_eq!(read(&caddy().join("certificates")).unwrap(), found);
    let home = tempfile::tempdir().unwrap();
    copy(&caddy(), &home.path().join(".local/share/caddy"));
    assert_eq!(read(home.path()).unwrap().certificates.len(), 2);
    assert!(is_of("acme-v02.api.letsencrypt.org-directory", "https://acme-v02.api.letsencrypt.org/directory"));
}

#[test]
fn a_registration_that_was_written_over_a_longer_one_is_read() {
    let home = tempfile::tempdir().unwrap();
    copy(&caddy(), home.path());
    let file = home.path().join("acme/127.0.0.1-24000-dir/users/me@a.fr/me.json");
    let whole = fs::read_to_string(&file).unwrap();
    fs::write(&file, whole + "39\"\n}").unwrap();
    let (found, expected) = (read(home.path()).unwrap(), read(&caddy()).unwrap());
    assert_eq!((&found.accounts[0].url, &found.left[..]), (&expected.accounts[0].url, &[][..]));
    fs::write(&file, " ").unwrap();
    assert!(read(home.path()).unwrap().left[0].1.contains("me.json: EOF"));
}

#[test]
fn what_lacks_a_part_is_left_and_named() {
    let home = tempfile::tempdir().unwrap();
    copy(&caddy(), home.path());
    let ca = home.path().join("certificates/127.0.0.1-24000-dir");
    fs::remove_file(ca.join("a.fr/a.fr.key")).unwrap();
    fs::write(home.path().join("acme/127.0.0.1-24000-dir/users/me@a.fr/me.json"), "{").unwrap();
    let found = read(home.path()).unwrap();
    assert_eq!((files(&found), found.accounts.len()), (vec!["www.a.fr.crt"], 0));
    let left: Vec<String> = found.left.iter().map(|(path, why)| format!("{}: {why}", path.display())).collect();
    assert!(left[0].contains("a.fr: a.fr.key cannot be read: No such file"), "{left:?}");
    assert!(left[1].contains("me@a.fr: me.json: EOF"), "{left:?}");
}

#[test]
fn the_folder_of_a_certbot_is_read() {
    let root = tempfile::tempdir().unwrap();
    let (live, archive) = (root.path().join("live/a.fr"), root.path().join("archive/a.fr"));
    let (renewal, account) = (root.path().join("renewal"), root.path().join("accounts/ca.fr/directory/0123"));
    for folder in [&live, &archive, &renewal, &account] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::write(root.path().join("live/README"), "This directory contains your keys and certificates.").unwrap();
    for name in ["cert", "chain", "fullchain", "privkey"] {
        fs::write(archive.join(format!("{name}1.pem")), format!("old {name}")).unwrap();
        fs::write(archive.join(format!("{name}2.pem")), format!("new {name}")).unwrap();
        let target = format!("../../archive/a.fr/{name}2.pem");
        std::os::unix::fs::symlink(target, live.join(format!("{name}.pem"))).unwrap();
    }
    let conf = "version = 2.1.0\narchive_dir = /etc/letsencrypt/archive/a.fr\n[renewalparams]\naccount = 0123\n\
                authenticator = nginx\nserver = https://ca.fr/directory\n";
    fs::write(renewal.join("a.fr.conf"), conf).unwrap();
    fs::write(account.join("private_key.json"), "{}").unwrap();
    fs::create_dir_all(root.path().join("live/half.fr")).unwrap();
    for named in [root.path(), &root.path().join("live")] {
        let found = read(named).unwrap();
        let [one] = &found.certificates[..] else { panic!("{found:?}") };
        assert_eq!((one.chain_pem.as_str(), one.key_pem.expose()), ("new fullchain", "new privkey"));
        assert!(is_of(&one.origin, "https://ca.fr/directory"));
        let left: Vec<_> = found.left.iter().map(|(path, _)| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(left, ["half.fr", "0123"]);
    }
}

#[test]
fn a_folder_of_something_else_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(read(dir.path()).unwrap_err().contains("neither"));
    assert!(read(&dir.path().join("gone")).unwrap_err().contains("No such file"));
}

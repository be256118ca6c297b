//! Whether a program can be run at all, asked before anybody waits for it. May look at the file; runs nothing.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What is wrong with a program, and the way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// What is wrong.
    pub message: String,
    /// The way out.
    pub help: String,
}

/// Why [`crate::command`] of this program could not be started, as far as its file shows: that this user in particular may not
/// run it is seen when it is run.
#[must_use]
pub fn unusable(program: &Path) -> Option<Unusable> {
    let said = |message: &str, help: String| Some(Unusable { message: message.to_owned(), help });
    match std::fs::metadata(program) {
        Ok(about) if about.is_dir() => said("is a folder", "name the program in it".to_owned()),
        Ok(about) if !about.is_file() => said("is not a file", "name a program".to_owned()),
        Ok(about) if !is_executable(&about) => said(
            "is not executable",
            format!("make it so: `chmod +x {}`; then `relais reload`, or save the file again", program.display()),
        ),
        Ok(_) => None,
        Err(error) if error.kind() == io::ErrorKind::NotFound => said("does not exist", way_out(program)),
        Err(error) => said(
            &format!("cannot be looked at: {error}"),
            "the user that runs relais must be allowed to run it, and to enter the folders it is in".to_owned(),
        ),
    }
}

fn is_executable(about: &Metadata) -> bool {
    about.permissions().mode() & 0o111 != 0
}

/// `PATH` is not searched: one that is there is to be named as it is.
fn way_out(program: &Path) -> String {
    match program.file_name().and_then(in_path) {
        Some(there) => format!("`PATH` is not searched: write \"{}\"", there.display()),
        None => "correct the path, or put the program there; a relative one starts at the folder of the config file"
            .to_owned(),
    }
}

fn in_path(name: &OsStr) -> Option<PathBuf> {
    let runs = |file: &PathBuf| std::fs::metadata(file).is_ok_and(|about| about.is_file() && is_executable(&about));
    std::env::split_paths(&crate::path())
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(runs)
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, create_dir, set_permissions, write};

    use super::*;

    #[test]
    fn what_cannot_be_run_is_told_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let said = |name: &str| unusable(&at(name)).map(|why| format!("{}; {}", why.message, why.help));
        write(at("check"), "#!/bin/sh\n").unwrap();
        set_permissions(at("check"), Permissions::from_mode(0o644)).unwrap();
        let make = format!("make it so: `chmod +x {}`", at("check").display());
        let chmod = format!("is not executable; {make}; then `relais reload`, or save the file again");
        assert_eq!(said("check"), Some(chmod));
        set_permissions(at("check"), Permissions::from_mode(0o755)).unwrap();
        assert_eq!(said("check"), None);
        create_dir(at("folder")).unwrap();
        assert_eq!(said("folder").unwrap(), "is a folder; name the program in it");
        assert!(said("check/inside").unwrap().starts_with("cannot be looked at: "));
        let gone = said("no-such-program").unwrap();
        assert!(gone.starts_with("does not exist; correct the path"), "{gone}");
        let named = said("sh").unwrap();
        assert!(
            named.starts_with("does not exist; `PATH` is not searched: write \"/") && named.ends_with("/sh\""),
            "{named}"
        );
    }
}

//! Programs of the system that tests use as clients. One that is missing skips its test, and says so.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

/// Whether a program is there; says what to install when it is not.
pub(crate) fn have(program: &str, package: &str) -> bool {
    let found =
        ["/usr/bin", "/bin", "/usr/sbin", "/usr/local/bin"].iter().any(|dir| Path::new(dir).join(program).exists());
    if !found {
        skipped(&format!("needs Debian package {package} ({program})"));
    }
    found
}

/// Says visibly that a test did not run: cargo shows only the output of tests that fail, so this goes to the terminal.
pub(crate) fn skipped(why: &str) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("SKIPPED: {name}: {why}\n");
    // Test output is captured; the file descriptor is not.
    let shown = std::fs::OpenOptions::new().append(true).open("/dev/stderr").is_ok_and(|mut stderr| {
        use std::io::Write;
        stderr.write_all(line.as_bytes()).is_ok()
    });
    if !shown {
        eprint!("{line}");
    }
}

/// What a program did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a program to its end.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// curl, told to give up at some time, without the user's settings.
pub(crate) fn curl(arguments: &[&str]) -> Command {
    let mut command = Command::new("/usr/bin/curl");
    command.args(["-q", "--silent", "--show-error", "--max-time", "20"]).args(arguments);
    command
}

/// curl's words for "this host is there".
pub(crate) fn resolve(host: &str, address: SocketAddr) -> String {
    format!("{host}:{}:{}", address.port(), address.ip())
}

/// h2load's count of answers: (succeeded, failed and errored and timed out, 2xx).
#[track_caller]
pub(crate) fn h2load(arguments: &[&str]) -> (u64, u64, u64) {
    let ran = run(Command::new("/usr/bin/h2load").args(arguments));
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    let requests = ran.stdout.lines().find(|line| line.starts_with("requests:")).unwrap_or_default();
    let count = |word: &str| -> u64 {
        let found = requests.split(',').find(|part| part.trim_end().ends_with(word)).unwrap_or("0");
        found.trim_start_matches("requests:").split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    let codes = ran.stdout.lines().find(|line| line.starts_with("status codes:")).unwrap_or_default();
    let good = codes.trim_start_matches("status codes:").split_whitespace().next().and_then(|n| n.parse().ok());
    (count("succeeded"), count("failed") + count("errored") + count("timeout"), good.unwrap_or(0))
}

//! How many files (and so connections) this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What is assumed when the limit is "unlimited": more connections than this would run out of ports first.
const PLENTY: u64 = 1 << 20;

/// Open files allowed now.
#[must_use]
pub fn open_files() -> u64 {
    getrlimit(Resource::Nofile).current.map_or(PLENTY, |limit| limit.min(PLENTY))
}

/// Raises the soft limit to the hard one, as programs do that never call `select`. For the executable: an embedding
/// program decides about its own limits. Gives what is allowed afterwards.
pub fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = limit.maximum.map_or(PLENTY, |maximum| maximum.min(PLENTY));
    if limit.current.is_some_and(|current| current < raised) {
        // A refusal leaves the limit as it was, which `open_files` then says.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: limit.maximum });
    }
    open_files()
}

/// Files the process needs for itself: logs, store, runtimes, listeners, the admin socket, probes.
const OWN_FILES: u64 = 96;

/// Client connections allowed with this many open files. Each may need one to a backend, so they get half of what the
/// process does not need for itself, which is most of a small limit.
pub(crate) fn connections(open_files: u64) -> usize {
    let own = OWN_FILES.min(open_files / 4 * 3);
    usize::try_from((open_files - own) / 2).unwrap_or(usize::MAX).max(1)
}

/// Probes under way at a time with this many open files: an eighth of them, 32 to 8,192.
pub(crate) fn probes(open_files: u64) -> usize {
    usize::try_from((open_files / 8).clamp(32, 8192)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_reaches_the_hard_one() {
        let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(PLENTY).min(PLENTY);
        assert!(raise_open_files() >= hard);
        assert_eq!(open_files(), raise_open_files());
    }

    #[test]
    fn probes_leave_most_files_to_clients() {
        assert_eq!([0, 1024, 20_000, PLENTY].map(probes), [32, 128, 2500, 8192]);
    }

    #[test]
    fn each_client_leaves_a_file_for_its_backend() {
        assert_eq!(connections(1024), 464);
        assert_eq!(connections(262_144), 131_024);
        assert_eq!(connections(64), 8);
        assert_eq!(connections(0), 1);
    }
}

//! The story the demo tells, act by act.

use std::time::Duration;

use super::site::Condition;

/// One act: what happens, to whom, and how long it is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Act {
    /// What happens to which site; none in the first act.
    pub(crate) change: Option<(&'static str, Condition)>,
    /// In words.
    pub(crate) words: &'static str,
    /// How long it is looked at.
    pub(crate) lasts: Duration,
    /// The sites that must answer requests in the last second of the act; nobody else may.
    pub(crate) serving: &'static [&'static str],
}

const fn act(
    change: Option<(&'static str, Condition)>,
    words: &'static str,
    seconds: u64,
    serving: &'static [&'static str],
) -> Act {
    Act { change, words, lasts: Duration::from_secs(seconds), serving }
}

/// dijon and thory share the load, ovh is the last resort.
pub(crate) const ACTS: [Act; 7] = [
    act(None, "all is well: dijon and thory share the load, ovh is the last resort", 2, &["dijon", "thory"]),
    act(
        Some(("dijon", Condition::Cut)),
        "dijon's cable is cut: nothing closes, nothing is refused, all is silence",
        3,
        &["thory"],
    ),
    act(Some(("dijon", Condition::Well)), "dijon is back", 3, &["dijon", "thory"]),
    act(Some(("thory", Condition::Killed)), "thory's processes are killed: connections are refused", 2, &["dijon"]),
    act(Some(("dijon", Condition::Cut)), "dijon is cut as well: the last resort is alone", 3, &["ovh"]),
    act(Some(("thory", Condition::Well)), "thory's processes run again", 3, &["thory"]),
    act(Some(("dijon", Condition::Well)), "dijon is back: all is well again", 2, &["thory"]),
];

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn the_story_ends_as_it_began_so_that_it_can_be_told_again() {
        let mut sites: HashMap<&str, Condition> = HashMap::new();
        for (site, condition) in ACTS.iter().filter_map(|act| act.change) {
            sites.insert(site, condition);
        }
        assert!(!sites.is_empty() && sites.values().all(|condition| *condition == Condition::Well), "{sites:?}");
    }
}

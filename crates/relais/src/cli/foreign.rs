//! What other proxies and service managers call our commands: a word of theirs is answered with ours. Knows words only.

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, Error};

/// Words that people type, and what is called so here.
const WORDS: &[(&str, &str)] = &[
    ("adapt", "check"),
    ("configtest", "check"),
    ("down", "disable"),
    ("info", "status"),
    ("maint", "disable"),
    ("maintenance", "disable"),
    ("quit", "stop"),
    ("ready", "enable"),
    ("renew", "certs renew"),
    ("reopen", "reload"),
    ("resume", "enable"),
    ("show", "status"),
    ("shutdown", "stop"),
    ("start", "run"),
    ("stats", "status"),
    ("test", "check"),
    ("undrain", "enable"),
    ("up", "enable"),
    ("validate", "check"),
    ("verify", "check"),
];

/// What is no command here.
const SENTENCES: &[(&str, &str)] = &[
    ("fmt", "files are not rewritten; `relais check` says what one declares, and what is wrong with it"),
    ("restart", "a changed file needs `relais reload` only, another executable `relais upgrade`"),
    ("version", "that is `relais --version`"),
];

/// How the usage begins where the word was to be a command, and not one of a command. Whatever the file's name is.
const AT_THE_TOP: &str = "relais [OPTIONS] <COMMAND>";

/// Names our word where a command of another program was typed: clap knows slips of the pen only.
pub(super) fn explained(mut error: Error) -> Error {
    let Some(ContextValue::String(typed)) = error.get(ContextKind::InvalidSubcommand) else { return error };
    let at_the_top = error.get(ContextKind::Usage).is_some_and(|usage| usage.to_string().contains(AT_THE_TOP));
    let Some(tip) = tip(typed).filter(|_| at_the_top) else { return error };
    error.remove(ContextKind::SuggestedSubcommand);
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![StyledStr::from(tip)]));
    error
}

fn tip(typed: &str) -> Option<String> {
    let typed = typed.to_lowercase();
    let known =
        |words: &'static [(&str, &'static str)]| words.iter().find(|(word, _)| *word == typed).map(|(_, ours)| *ours);
    known(WORDS).map(|ours| format!("that is `relais {ours}`")).or_else(|| known(SENTENCES).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::super::Cli;
    use super::*;

    fn answer(typed: &str) -> String {
        let words = ["relais"].into_iter().chain(typed.split(' '));
        let error = Cli::command().try_get_matches_from(words).unwrap_err();
        explained(error).to_string()
    }

    #[test]
    fn words_of_others_are_answered_with_ours() {
        let undrain = answer("undrain dijon");
        assert!(undrain.contains("tip: that is `relais enable`"), "{undrain}");
        assert!(!undrain.contains("similar"), "{undrain}");
        let renamed = Cli::command().try_get_matches_from(["/opt/relais-0.1", "undrain"]).unwrap_err();
        assert!(explained(renamed).to_string().contains("tip: that is `relais enable`"));
        assert!(answer("--config proxy.toml restart").contains("`relais reload`"));
        let below = answer("certs validate");
        assert!(below.contains("validate") && !below.contains("relais check"), "{below}");
    }

    #[test]
    fn slips_of_the_pen_are_still_clap_s_business() {
        let slip = answer("drian dijon");
        assert!(slip.contains("drain") && !slip.contains("that is"), "{slip}");
    }

    #[test]
    fn what_is_proposed_exists_and_is_proposed_for_nothing_that_exists() {
        let command = Cli::command();
        for (typed, ours) in WORDS {
            let mut words = ours.split(' ');
            let first = words.next().and_then(|word| command.find_subcommand(word));
            let last = words.fold(first, |found, word| found?.find_subcommand(word));
            assert!(last.is_some(), "{ours}");
            assert!(command.find_subcommand(typed).is_none(), "{typed}");
        }
    }
}

//! One thing wrong, before it has a place in the file; and the search for the word that was meant.
//!
//! This room knows words only. It may not touch the tree of the file: spans are added by `context`.

/// What to say about one mistake.
#[derive(Debug)]
pub(crate) struct Fault {
    /// What is wrong, in one sentence.
    pub(crate) message: String,
    /// Short words under the underline.
    pub(crate) label: String,
    /// The way out.
    pub(crate) help: Option<String>,
}

impl Fault {
    /// A fault that says what is wrong; the rest is added by the calls below.
    pub(crate) fn new(message: impl Into<String>) -> Fault {
        Fault { message: message.into(), label: String::new(), help: None }
    }

    /// The words under the underline.
    pub(crate) fn label(mut self, label: impl Into<String>) -> Fault {
        self.label = label.into();
        self
    }

    /// The line to write instead.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Fault {
        self.help = Some(help.into());
        self
    }
}

/// Words of other proxies for what has another name here.
const FOREIGN: &[(&str, &str)] = &[
    ("address", "addr"),
    ("addresses", "address"),
    ("bind", "address"),
    ("cert_file", "cert"),
    ("client-ip", "client-address"),
    ("cookie_name", "cookie"),
    ("domain", "hosts"),
    ("domains", "hosts"),
    ("down_after", "fall"),
    ("endpoints", "backends"),
    ("every", "interval"),
    ("healthcheck", "health"),
    ("host", "hosts"),
    ("ip-hash", "hash"),
    ("key_path", "key"),
    ("least-conn", "least-inflight"),
    ("least-connections", "least-inflight"),
    ("leastconn", "least-inflight"),
    ("listen", "address"),
    ("locations", "paths"),
    ("name", "hosts"),
    ("path_prefix", "paths"),
    ("prefix", "paths"),
    ("priority", "tier"),
    ("random-choose", "random"),
    ("server_name", "hosts"),
    ("servers", "backends"),
    ("trusted", "trusted_proxies"),
    ("up_after", "rise"),
    ("uri", "path"),
    ("upstreams", "backends"),
    ("url", "addr"),
];

/// The known word nearest to `word`: a slip of the pen, or another proxy's name for it.
///
/// The distance is limited to a third of the word (at least 1, at most 3), so that the answer is a help, not a guess.
pub(crate) fn nearest<'w>(word: &str, known: &[&'w str]) -> Option<&'w str> {
    let typed = plain(word);
    let limit = (typed.chars().count() / 3).clamp(1, 3);
    let slip = known
        .iter()
        .map(|candidate| (strsim::osa_distance(&typed, &plain(candidate)), *candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance);
    if let Some((_, candidate)) = slip {
        return Some(candidate);
    }
    let mut ours = FOREIGN.iter().filter(|(foreign, _)| plain(foreign) == typed).map(|(_, ours)| ours);
    ours.find_map(|ours| known.iter().find(|candidate| *candidate == ours)).copied()
}

/// The only known word of which `word` is the beginning or one part, or that is so of it: `state` for `state_dir`.
pub(crate) fn akin<'w>(word: &str, known: &[&'w str]) -> Option<&'w str> {
    let typed = plain(word);
    let holds = |long: &str, short: &str| {
        short.chars().count() >= 4 && (long.starts_with(short) || long.split('-').any(|part| part == short))
    };
    let mut found = known.iter().filter(|candidate| {
        let candidate = plain(candidate);
        holds(&candidate, &typed) || holds(&typed, &candidate)
    });
    let only = found.next()?;
    found.next().is_none().then_some(*only)
}

fn plain(word: &str) -> String {
    word.trim().to_lowercase().replace('_', "-")
}

/// "did you mean `x`? NOUN: a, b, c", or only the list when nothing is near.
pub(crate) fn suggest(word: &str, known: &[&str], noun: &str) -> String {
    let list = known.join(", ");
    match nearest(word, known) {
        Some(near) => format!("did you mean `{near}`? {noun}: {list}"),
        None => format!("{noun}: {list}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{akin, nearest, suggest};

    #[test]
    fn slips_are_found_and_guesses_are_not() {
        let keys = ["interval", "timeout", "rise", "fall", "path"];
        assert_eq!(nearest("intervall", &keys), Some("interval"));
        assert_eq!(nearest("Interval", &keys), Some("interval"));
        assert_eq!(nearest("tiemout", &keys), Some("timeout"));
        assert_eq!(nearest("ries", &keys), Some("rise"));
        assert_eq!(nearest("weight", &keys), None);
        assert_eq!(nearest("x", &keys), None);
    }

    #[test]
    fn words_of_other_proxies_are_known() {
        assert_eq!(nearest("every", &["interval", "rise"]), Some("interval"));
        assert_eq!(nearest("least_conn", &["least-inflight", "random"]), Some("least-inflight"));
        assert_eq!(nearest("every", &["rise"]), None);
    }

    #[test]
    fn a_part_of_one_word_is_enough() {
        let keys = ["state_dir", "trusted_proxies", "request_headers", "response_headers", "tls", "cert"];
        assert_eq!(akin("state", &keys), Some("state_dir"));
        assert_eq!(akin("state_directory", &keys), Some("state_dir"));
        assert_eq!(akin("Proxies", &keys), Some("trusted_proxies"));
        assert_eq!(akin("certificate", &keys), Some("cert"));
        assert_eq!(akin("headers", &keys), None, "one of two");
        assert_eq!(akin("tls_version", &keys), None, "too short to say anything");
        assert_eq!(akin("", &keys), None);
    }

    #[test]
    fn the_list_follows_the_suggestion() {
        assert_eq!(
            suggest("thorry", &["dijon", "thory"], "declared sites"),
            "did you mean `thory`? declared sites: dijon, thory"
        );
        assert_eq!(suggest("mars", &["dijon", "thory"], "declared sites"), "declared sites: dijon, thory");
    }
}

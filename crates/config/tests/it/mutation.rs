//! Broken files: whatever the text, the answer is a usable config or a list of mistakes, never a panic.

use relais_config::{Action, Config, HealthCheck};

use crate::parse;
use crate::reference::{ACECINEMA, everything};

/// What is not a config must be told with true places; what is one must be usable.
fn survives(text: &str) {
    match parse(text) {
        Ok(parsed) => {
            usable(&parsed.config, text);
            assert!(!parsed.config.summary().is_empty());
            for problem in &parsed.warnings {
                assert!(text.get(problem.span.clone()).is_some(), "{problem:?}");
            }
        }
        Err(errors) => {
            assert!(!errors.problems.is_empty(), "an error without a problem: {text}");
            let mut last = 0;
            for problem in &errors.problems {
                assert!(text.get(problem.span.clone()).is_some(), "{problem:?} in {text}");
                assert!(problem.line >= 1 && problem.line <= text.matches('\n').count() + 1, "{problem:?}");
                assert!(problem.span.start >= last, "not in the order of the file: {problem:?}");
                assert!(!problem.message.is_empty(), "{problem:?}");
                last = problem.span.start;
            }
            assert!(errors.to_string().contains("error: "), "{text}");
        }
    }
}

/// What the other floors rely on.
fn usable(config: &Config, text: &str) {
    assert!(!config.listeners.is_empty(), "no listener: {text}");
    assert!(config.listeners.iter().all(|listener| !listener.addresses.is_empty()), "no address: {text}");
    assert!(!config.services.is_empty(), "no service: {text}");
    for service in &config.services {
        assert!(!service.hosts.is_empty() && !service.paths.is_empty(), "no route: {text}");
        let Action::Forward(forward) = &service.action else { continue };
        assert!(!forward.backends.is_empty(), "no backend: {text}");
        assert!((300..=60_000).contains(&forward.failover_within.as_millis()), "contract: {text}");
        for backend in &forward.backends {
            assert!((1..=1000).contains(&backend.weight) && (1..=1000).contains(&backend.tier), "{backend:?}");
            assert!(config.sites.iter().any(|site| site.name == backend.site), "{backend:?} is on no site");
        }
        let HealthCheck { interval, timeout, jitter, .. } = &forward.health;
        assert!(interval.is_none_or(|time| !time.is_zero()) && timeout.is_none_or(|time| !time.is_zero()), "{text}");
        assert!((0.0..=0.5).contains(jitter), "{text}");
    }
}

/// Xorshift: the same texts in every run.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % below as u64).expect("below a usize")
    }
}

/// Pieces that mean something to some reader.
const PIECES: [&str; 40] = [
    "\"",
    "'",
    "\"\"\"",
    "'''",
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "=",
    ",",
    ".",
    "#",
    "\n",
    "\r\n",
    "\r",
    "\0",
    "\\",
    "${",
    "$${",
    "${PORT}",
    "${EMPTY}",
    "}",
    "é",
    "\u{feff}",
    "\u{2028}",
    "-1",
    "0",
    "99999999999999999999",
    "1e400",
    "nan",
    "true",
    "1979-05-27",
    "\"0s\"",
    "\"1ms\"",
    "[]",
    "{}",
    "*",
    ":",
];

fn mutate(text: &str, random: &mut Random) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..=random.next(4) {
        let at = random.next(bytes.len().max(1)).min(bytes.len());
        let length = random.next(40).min(bytes.len() - at);
        match random.next(6) {
            0 => drop(bytes.drain(at..at + length)),
            1 => {
                let piece = bytes[at..at + length].to_vec();
                let to = random.next(bytes.len() + 1);
                drop(bytes.splice(to..to, piece));
            }
            2 if at < bytes.len() => bytes[at] = u8::try_from(random.next(256)).expect("below 256"),
            3 => {
                let line_end = bytes[at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |end| at + end);
                drop(bytes.drain(at..line_end));
            }
            _ => {
                let piece = PIECES[random.next(PIECES.len())];
                let end = at + length.min(random.next(8));
                drop(bytes.splice(at..end, piece.bytes()));
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn mutated_files_are_told_or_used() {
    let mut random = Random(0x5eed_0f70);
    let (small, large) = (ACECINEMA.to_owned(), everything());
    for round in 0..3000 {
        let text = if round % 4 == 0 { &large } else { &small };
        survives(&mutate(text, &mut random));
    }
}

#[test]
fn files_cut_at_every_byte_are_told_or_used() {
    // Without the comments, so that every cut is inside something.
    let strip = |text: &str| {
        let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
        lines.map(|line| line.split("  #").next().unwrap_or(line).trim_end()).collect::<Vec<_>>().join("\n")
    };
    for text in [strip(ACECINEMA), strip(&everything())] {
        for at in (0..text.len()).filter(|at| text.is_char_boundary(*at)) {
            survives(&text[..at]);
        }
    }
}

#[test]
fn deep_and_long_files_are_told() {
    survives(&"[".repeat(100_000));
    survives(&format!("a = {}", "[".repeat(100_000)));
    survives(&format!("a = {}", "{a = ".repeat(20_000)));
    survives(&format!("{}a = 1", "a.".repeat(100_000)));
    survives(&"a\n".repeat(5000));
    survives(&format!("[service.api]\nhosts = [{}]", "\"a b\", ".repeat(2000)));
    survives(&format!("[edge]\nemail = \"{}\"", "${PORT}".repeat(10_000)));
    survives(&"\"".repeat(10_000));
    survives(&format!("x = \"{}", "é".repeat(50_000)));
}

//! `relais status`: fetch, judge, show. The pictures themselves are in `picture`.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::order::shaped;
use super::view::Status;
use super::{Client, ClientError, EXIT_DEGRADED, EXIT_NO_BACKEND, Failure, Whom, picture, say};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The daemon's whole answer, as JSON
    #[arg(long)]
    json: bool,
    /// Show it again every second until interrupted
    #[arg(long, conflicts_with = "json")]
    watch: bool,
}

pub(crate) fn status(options: &Options, whom: &Whom) -> Result<ExitCode, Failure> {
    let mut client = Client::new(whom)?;
    let mut seen = false;
    loop {
        let answer = match client.get("/status") {
            // Once it was there it is waited for: whoever watches a restart wants to see its end.
            Err(ClientError::Unreachable(_) | ClientError::Broken(..)) if seen => {
                say("no relais answers: it is looked for again every second");
                std::thread::sleep(Duration::from_secs(1));
                continue;
            }
            answer => answer?,
        };
        if options.json {
            let code = ExitCode::from(verdict(&shaped(answer.clone())?));
            say(pretty(&answer));
            return Ok(code);
        }
        let status: Status = shaped(answer)?;
        let picture = picture::draw(&status);
        if !options.watch {
            say(picture.trim_end());
            return Ok(ExitCode::from(verdict(&status)));
        }
        seen = true;
        // The whole screen: the picture may be longer than it, and then only the top can be kept in place.
        let clear = if std::io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" };
        say(format_args!("{clear}{}", picture.trim_end()));
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn pretty(answer: &Value) -> String {
    serde_json::to_string_pretty(answer).unwrap_or_else(|_| answer.to_string())
}

/// The exit code: 0 good, 4 degraded, 5 a service has no backend.
fn verdict(status: &Status) -> u8 {
    if status.report.services.iter().any(|service| service.is_without_backend()) {
        return EXIT_NO_BACKEND;
    }
    // What an operator took out is meant; what is not up although it should be is not.
    let ailing = |health: &str, admin: &str| admin == "enabled" && health != "up";
    let sick = status.report.services.iter().flat_map(|s| &s.backends).any(|b| ailing(&b.health, &b.admin));
    let trouble = !status.alarms.is_empty()
        || status.reload.outcome == "refused"
        || status.store.mode == "memory"
        || status.certificates.iter().any(|certificate| certificate.problem.is_some());
    if sick || trouble { EXIT_DEGRADED } else { 0 }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(change: impl FnOnce(&mut Value)) -> u8 {
        let mut value = super::super::picture::tests::example();
        change(&mut value);
        verdict(&serde_json::from_value(value).unwrap())
    }

    #[test]
    fn good_degraded_and_without_backend_have_their_own_codes() {
        assert_eq!(status(|_| {}), 0);
        assert_eq!(status(|s| s["report"]["services"][0]["backends"][0]["health"] = json!("down")), EXIT_DEGRADED);
        assert_eq!(status(|s| s["reload"]["outcome"] = json!("refused")), EXIT_DEGRADED);
        assert_eq!(status(|s| s["store"]["mode"] = json!("memory")), EXIT_DEGRADED);
        assert_eq!(status(|s| s["certificates"][0]["problem"] = json!("expired")), EXIT_DEGRADED);
        assert_eq!(status(|s| s["report"]["services"][0]["tier"] = Value::Null), EXIT_NO_BACKEND);
    }

    #[test]
    fn what_the_operator_took_out_is_not_degraded() {
        let code = status(|s| {
            s["report"]["services"][0]["backends"][0]["admin"] = json!("disabled");
            s["report"]["services"][0]["backends"][0]["health"] = json!("down");
        });
        assert_eq!(code, 0);
    }

    #[test]
    fn a_service_that_redirects_needs_no_backend() {
        let code = status(|s| {
            s["report"]["services"][0]["action"] = json!("redirect");
            s["report"]["services"][0]["tier"] = Value::Null;
        });
        assert_eq!(code, 0);
    }
}

//! Waits until every name server of the zone shows what was written: a CA may ask any of them, and one wrong answer costs
//! a failed validation. May send DNS queries; decides nothing else.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::time::Instant;

use super::ask::{NameServer, Resolvers, ask};
use super::fault::DnsFault;

/// Between two rounds of questions: short at first, since most providers are done within seconds.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Questions of one round come one after the other until the name servers are known.
const LONGEST_ROUND: Duration = Duration::from_secs(30);

/// What one name server shows.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Shown {
    /// Everything.
    All,
    /// It answers, and not with all of it.
    NotYet,
    /// It gives no answer of its own; why.
    Silent(String),
}

/// Returns when every name server of the zone that holds `name` has `values` there.
///
/// A name server that gives no answer at all to anybody cannot mislead a CA: when `within` has passed, it is left out if
/// all others show the values.
pub(super) async fn visible(
    resolvers: &Resolvers,
    name: &Name,
    values: &[&str],
    within: Duration,
    port: u16,
) -> Result<(), DnsFault> {
    let end = Instant::now() + within;
    let mut pause = FIRST_PAUSE;
    loop {
        // The list is asked for in each round: who cannot say it now may be able to later.
        let round = async {
            let servers = resolvers.authorities(name, port).await?;
            let shown = join_all(servers.iter().map(|server| shown(server, name, values, port))).await;
            Ok::<_, DnsFault>(servers.into_iter().zip(shown).collect::<Vec<_>>())
        };
        let round = tokio::time::timeout(LONGEST_ROUND, round).await.unwrap_or_else(|_| {
            let help = "check the name servers of this machine, or name others in `resolvers`";
            Err(DnsFault::new(format!("the name servers of {name} were not found in {LONGEST_ROUND:?}"), help))
        });
        if let Ok(round) = &round
            && round.iter().all(|(_, shown)| *shown == Shown::All)
        {
            return Ok(());
        }
        if Instant::now() + pause >= end {
            return judge(name, within, &round?);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The time is over: whether what was seen last will do.
fn judge(name: &Name, within: Duration, round: &[(NameServer, Shown)]) -> Result<(), DnsFault> {
    let said = |(server, shown): &(NameServer, Shown)| match shown {
        Shown::All => None,
        Shown::NotYet => Some(format!("{} does not show it", server.name)),
        Shown::Silent(why) => Some(format!("{}: {why}", server.name)),
    };
    let missing = round.iter().filter_map(said).collect::<Vec<_>>().join(", ");
    let none_is_wrong = round.iter().all(|(_, shown)| *shown != Shown::NotYet);
    if none_is_wrong && round.iter().any(|(_, shown)| *shown == Shown::All) {
        tracing::warn!(%name, %missing, "the record is seen wherever there is an answer; these name servers give none");
        return Ok(());
    }
    let help = if none_is_wrong {
        "let relais ask name servers outside (UDP and TCP to port 53), or set `propagation_timeout = \"0s\"` to do without the check"
    } else {
        "check that this is the zone the provider writes to and that its name servers take over changes, or raise `propagation_timeout`"
    };
    Err(DnsFault::new(format!("the record {name} was not seen everywhere after {within:?}: {missing}"), help))
}

/// All addresses of a server are asked: behind each may stand another machine.
async fn shown(server: &NameServer, name: &Name, values: &[&str], port: u16) -> Shown {
    let questions = server.addresses.iter().map(|address| {
        let address = SocketAddr::new(*address, port);
        async move {
            match ask(address, name, RecordType::TXT, false).await {
                Ok(answer) => judge_answer(&answer, name, values),
                Err(why) => Shown::Silent(format!("{} {why}", address.ip())),
            }
        }
    });
    let mut silent = None;
    let mut seen = false;
    for shown in join_all(questions).await {
        match shown {
            Shown::All => seen = true,
            Shown::NotYet => return Shown::NotYet,
            Shown::Silent(_) => silent = silent.or(Some(shown)),
        }
    }
    // Where one address answers, another that cannot be reached is a matter of our own network: no IPv6, mostly.
    match silent {
        Some(silent) if !seen => silent,
        _ => Shown::All,
    }
}

fn judge_answer(answer: &Message, name: &Name, values: &[&str]) -> Shown {
    if !matches!(answer.response_code, ResponseCode::NoError | ResponseCode::NXDomain) || !answer.authoritative {
        return Shown::Silent(format!("does not answer for the zone ({})", answer.response_code));
    }
    let texts: Vec<Vec<u8>> = answer
        .answers
        .iter()
        .filter(|record| record.name == *name)
        .filter_map(|record| match &record.data {
            RData::TXT(text) => Some(text.txt_data.concat()),
            _ => None,
        })
        .collect();
    let has = |value: &&str| texts.iter().any(|text| text == value.as_bytes());
    if values.iter().all(has) { Shown::All } else { Shown::NotYet }
}

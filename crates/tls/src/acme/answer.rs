//! The challenges of an order: which one proves which host, what answers it, and what the CA found when it looked.

use instant_acme::{AuthorizationStatus, ChallengeStatus, ChallengeType, Error, Order};
use relais_core::config::Challenge;

use super::board::Notice;
use super::dns::{DnsFault, Failed, Presented, Undo};
use super::fault::{self, FaultKind, OrderFault};
use super::order::Desk;
use super::step::Step;
use super::wire::{Tries, persist};

/// The answers to an order's challenges, up as long as this lives.
pub(super) struct Answers {
    /// By the place of the authorisation in the order; `None`: proven before.
    chosen: Vec<Option<(String, Challenge)>>,
    _up: Vec<Notice>,
    /// For `dns-01`. Removed in the background where the order is cut off.
    records: Option<Presented>,
}

/// Chooses a challenge for each host and puts the answers up.
pub(super) async fn put_up(desk: &Desk<'_>, order: &mut Order) -> Result<Answers, OrderFault> {
    load(desk, order).await?;
    let mut answers = Answers { chosen: Vec::new(), _up: Vec::new(), records: None };
    let mut values = Vec::new();
    let mut all = order.authorizations();
    while let Some(authorization) = all.next().await {
        let mut authorization = authorization.map_err(|error| desk.wire.fault(&error))?;
        let host = authorization.identifier().to_string();
        match authorization.status {
            AuthorizationStatus::Valid => {
                answers.chosen.push(None);
                continue;
            }
            AuthorizationStatus::Pending => {}
            _ => return Err(OrderFault::new(FaultKind::Refused, format!("the CA gave up proving {host}"))),
        }
        let offered: Vec<ChallengeType> = authorization.challenges.iter().map(|one| one.r#type.clone()).collect();
        let challenge = choose(&desk.job.challenges, &host, &offered)?;
        let Some(handle) = authorization.challenge(kind(challenge)) else { continue };
        let answer = handle.key_authorization();
        match challenge {
            Challenge::Http01 => answers._up.push(desk.board.put_http01(&host, &handle.token, answer.as_str())),
            Challenge::TlsAlpn01 => {
                let notice = desk.board.put_tls_alpn01(&host, answer.digest().as_ref());
                answers._up.push(notice.map_err(|why| OrderFault::new(FaultKind::Internal, why))?);
            }
            Challenge::Dns01 => values.push((host.clone(), answer.dns_value())),
        }
        answers.chosen.push(Some((host, challenge)));
    }
    if !values.is_empty() {
        answers.records = Some(write(desk, &values).await?);
    }
    Ok(answers)
}

/// Writes the records for `dns-01`; they are noted before, so that they are removed even after a kill.
async fn write(desk: &Desk<'_>, values: &[(String, String)]) -> Result<Presented, OrderFault> {
    let fault = |DnsFault { message, help }: DnsFault| OrderFault {
        challenge: Some(Challenge::Dns01),
        ..OrderFault::new(FaultKind::Dns, message).likely(help)
    };
    let Some(dns) = desk.dns else {
        let said = "`dns-01` is needed, and nobody is declared who changes the DNS";
        return Err(OrderFault::new(FaultKind::Dns, said).likely("declare an `[acme.dns.NAME]`"));
    };
    let plan = dns.plan(values).await.map_err(fault)?;
    desk.steps.keep_records(plan.clone()).await?;
    match dns.present(plan.clone()).await {
        Ok(presented) => Ok(presented),
        Err(Failed { fault: why, left }) => {
            removed(desk, plan, left);
            Err(fault(why))
        }
    }
}

fn removed(desk: &Desk<'_>, mut records: Vec<Undo>, left: Vec<Undo>) {
    records.retain(|record| !left.contains(record));
    desk.steps.tell(Step::RecordsRemoved { records, left });
}

impl Answers {
    /// Removes the records, now that the CA has seen them or never will.
    pub(super) async fn take_down(self, desk: &Desk<'_>) {
        if let Some(presented) = self.records {
            let records = presented.undos().to_vec();
            let left = presented.clean().await;
            removed(desk, records, left);
        }
    }

    /// Tells the CA that the answers are up.
    pub(super) async fn announce(&self, desk: &Desk<'_>, order: &mut Order) -> Result<(), OrderFault> {
        let mut all = order.authorizations();
        let mut chosen = self.chosen.iter();
        while let Some(authorization) = all.next().await {
            let mut authorization = authorization.map_err(|error| desk.wire.fault(&error))?;
            let Some(Some((host, challenge))) = chosen.next() else { continue };
            let Some(mut handle) = authorization.challenge(kind(*challenge)) else { continue };
            desk.steps.tell(Step::Answering { host: host.clone(), challenge: *challenge });
            let mut tries = Tries::default();
            let told = persist!(desk.wire, true, tries, handle.set_ready());
            match told {
                Ok(()) => {}
                // It heard us the first time, now or before a crash, and cannot be told twice: how it went shows in the order.
                Err(Error::Api(_)) if tries.broke() || desk.job.begun.is_some() => {}
                Err(error) => return Err(desk.wire.fault(&error)),
            }
        }
        Ok(())
    }
}

/// Fetches every authorisation; what was fetched is not fetched again.
async fn load(desk: &Desk<'_>, order: &mut Order) -> Result<(), OrderFault> {
    let mut tries = Tries::default();
    loop {
        let mut failed = None;
        let mut all = order.authorizations();
        while let Some(authorization) = all.next().await {
            if let Err(error) = authorization {
                failed = Some(error);
                break;
            }
        }
        match failed {
            None => return Ok(()),
            Some(error) if desk.wire.again(&error, &mut tries, true).await => {}
            Some(error) => return Err(desk.wire.fault(&error)),
        }
    }
}

/// What the CA found wrong, from the challenge that failed; else what the order says.
pub(super) async fn why_invalid(desk: &Desk<'_>, order: &mut Order, answers: &Answers) -> OrderFault {
    let mut all = order.authorizations();
    let mut chosen = answers.chosen.iter();
    while let Some(Ok(mut authorization)) = all.next().await {
        let Some(Some((host, challenge))) = chosen.next() else { continue };
        let mut tries = Tries::default();
        loop {
            match authorization.refresh().await {
                Err(error) if desk.wire.again(&error, &mut tries, true).await => {}
                _ => break,
            }
        }
        let failed = authorization.challenges.iter().find(|one| one.status == ChallengeStatus::Invalid);
        if let Some(problem) = failed.and_then(|one| one.error.as_ref()) {
            return fault::validation(problem, host, *challenge);
        }
    }
    desk.dead(order)
}

/// The first of `wanted` that is offered and fits.
fn choose(wanted: &[Challenge], host: &str, offered: &[ChallengeType]) -> Result<Challenge, OrderFault> {
    let fits = |challenge: &Challenge| match challenge {
        Challenge::Http01 | Challenge::TlsAlpn01 => !host.starts_with("*."),
        // RFC 8738, section 7.
        Challenge::Dns01 => host.parse::<std::net::IpAddr>().is_err(),
    };
    let found = wanted.iter().copied().find(|one| fits(one) && offered.contains(&kind(*one)));
    found.ok_or_else(|| {
        let said = format!("{host} cannot be proven in any of the ways that the CA offers and `challenges` allows");
        let way = if host.starts_with("*.") {
            "a wildcard needs `dns-01`: declare an `[acme.dns.NAME]`"
        } else {
            "allow another challenge in `[acme] challenges`"
        };
        OrderFault::new(FaultKind::Refused, said).likely(way)
    })
}

fn kind(challenge: Challenge) -> ChallengeType {
    match challenge {
        Challenge::Http01 => ChallengeType::Http01,
        Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
        Challenge::Dns01 => ChallengeType::Dns01,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_way_that_fits_is_taken() {
        let (http, tls, dns) = (Challenge::Http01, Challenge::TlsAlpn01, Challenge::Dns01);
        let all = [ChallengeType::Dns01, ChallengeType::Http01, ChallengeType::TlsAlpn01];
        assert_eq!(choose(&[tls, http], "a.fr", &all).unwrap(), tls);
        assert_eq!(choose(&[tls, http], "a.fr", &all[..2]).unwrap(), http);
        assert_eq!(choose(&[http, tls, dns], "*.a.fr", &all).unwrap(), dns);
        assert_eq!(choose(&[dns, tls], "192.0.2.7", &all).unwrap(), tls);
        let fault = choose(&[http, tls], "*.a.fr", &all).unwrap_err();
        assert!(fault.to_string().contains("a wildcard needs `dns-01`"), "{fault}");
        let fault = choose(&[dns], "192.0.2.7", &all).unwrap_err();
        assert!(fault.to_string().contains("another challenge"), "{fault}");
    }
}

//! What an operator's words mean: a site or a backend, or a sentence that helps.

use std::sync::Arc;

use super::Fleet;
use crate::backend::BackendId;
use crate::event::Target;

/// At most so many names in one sentence.
const LISTED: usize = 8;

pub(super) fn find(fleet: &Fleet, words: &str) -> Result<Target, String> {
    let words = words.trim();
    if let Some(site) = fleet.sites.iter().find(|site| *site.name == *words) {
        return Ok(Target::Site(Arc::clone(&site.name)));
    }
    let ids: Vec<&BackendId> = fleet.slots.keys().collect();
    let named: Vec<&BackendId> = match words.split_once('/') {
        Some((service, rest)) => {
            ids.iter().copied().filter(|id| *id.service == *service && matches(id, rest)).collect()
        }
        None => Vec::new(),
    };
    let named = if named.is_empty() { ids.iter().copied().filter(|id| *id.address == *words).collect() } else { named };
    match named.as_slice() {
        [only] => Ok(Target::Backend((*only).clone())),
        [] => Err(unknown(fleet, words, &ids)),
        many => Err(format!(
            "`{words}` names {} backends; name one: {}",
            many.len(),
            list(many.iter().map(|id| format!("{}/{}/{}", id.service, id.site, id.address)))
        )),
    }
}

/// `ADDRESS`, `SITE`, or `SITE/ADDRESS` where two sites have the same address.
fn matches(id: &BackendId, rest: &str) -> bool {
    *id.address == *rest
        || *id.site == *rest
        || rest.split_once('/').is_some_and(|(site, address)| *id.site == *site && *id.address == *address)
}

fn unknown(fleet: &Fleet, words: &str, ids: &[&BackendId]) -> String {
    if fleet.services.iter().any(|service| *service.service.name == *words) {
        let mine: Vec<&&BackendId> = ids.iter().filter(|id| *id.service == *words).collect();
        if mine.is_empty() {
            return format!("`{words}` is a service without backends");
        }
        return format!(
            "`{words}` is a service; name a site or one of its backends: {}",
            list(mine.iter().map(ToString::to_string))
        );
    }
    let sites = fleet.sites.iter().map(|site| site.name.to_string());
    let names = sites.chain(ids.iter().map(ToString::to_string));
    let nearest = names.map(|name| (strsim::damerau_levenshtein(words, &name), name)).min();
    match nearest {
        Some((distance, name)) if distance <= (words.chars().count() / 3).max(2) => {
            format!("no site or backend `{words}`; did you mean `{name}`?")
        }
        _ => format!(
            "no site or backend `{words}`; sites: {}",
            list(fleet.sites.iter().map(|site| site.name.to_string()))
        ),
    }
}

fn list(names: impl ExactSizeIterator<Item = String>) -> String {
    let total = names.len();
    let mut listed: Vec<String> = names.take(LISTED).collect();
    if total > LISTED {
        listed.push(format!("and {} more", total - LISTED));
    }
    listed.join(", ")
}

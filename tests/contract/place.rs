//! Sites of well-behaved backends, and an edge in front of them.

use serde_json::Value;

use crate::support::edge::{Edge, Setup};
use crate::support::raw::{Addressed, Plain};
use crate::support::wait_for;

/// Sites by name, two backends each.
pub(crate) struct Place {
    pub(crate) edge: Edge,
    pub(crate) sites: Vec<(&'static str, Vec<Plain>)>,
}

impl Place {
    /// The service `web` on these sites, `NAME TIER`, with further lines of it. All are up when it returns.
    pub(crate) fn new(sites: &[(&'static str, u32)], lines: &str) -> Place {
        Place::answering(sites, lines, |_| crate::support::wire::ok("fine").into_bytes())
    }

    /// The same with backends that answer requests their own way; the site's name is given. Checks are answered 200.
    pub(crate) fn answering(sites: &[(&'static str, u32)], lines: &str, answer: fn(&str) -> Vec<u8>) -> Place {
        let backend = |name: &'static str| {
            Plain::new(move |seen| match seen.head.target() {
                "/health" => crate::support::wire::ok("well").into_bytes(),
                _ => answer(name),
            })
        };
        let built: Vec<(&str, Vec<Plain>)> =
            sites.iter().map(|(name, _)| (*name, vec![backend(name), backend(name)])).collect();
        let mut text = String::from("[sites]\n");
        for (name, tier) in sites {
            text.push_str(&format!("{name} = {tier}\n"));
        }
        text.push_str(&format!(
            "[service.web]\nhosts = [\"*\"]\nhealth = \"/health\"\n{lines}\n[service.web.backends]\n"
        ));
        for (name, backends) in &built {
            let list: Vec<String> = backends.iter().map(|backend| format!("{:?}", backend.address())).collect();
            text.push_str(&format!("{name} = [{}]\n", list.join(", ")));
        }
        let place = Place { edge: Setup::services(&text).start(), sites: built };
        place.all_up();
        place
    }

    pub(crate) fn backends(&self, site: &str) -> &[Plain] {
        &self.sites.iter().find(|(name, _)| *name == site).unwrap().1
    }

    #[track_caller]
    pub(crate) fn all_up(&self) {
        for (_, backends) in &self.sites {
            for backend in backends {
                self.edge.wait_for_health(backend, "up");
            }
        }
    }

    /// Requests, checks included, that a site's backends have seen.
    pub(crate) fn seen(&self, site: &str) -> usize {
        self.backends(site).iter().map(Plain::count).sum()
    }

    /// What the edge says of its drill.
    pub(crate) fn drill(&self) -> Value {
        let (code, body) = self.edge.admin("GET", "/drill", "");
        assert_eq!(code, 200, "{body}");
        serde_json::from_str::<Value>(&body).unwrap()["drill"].take()
    }

    /// Waits until a site is cut by a drill and its backends are down.
    #[track_caller]
    pub(crate) fn wait_until_left(&self, site: &str) {
        for backend in self.backends(site) {
            self.edge.wait_for_health(backend, "down");
        }
    }

    #[track_caller]
    pub(crate) fn wait_until_cut(&self, site: &str) {
        wait_for("the drill has begun", || {
            let status = self.edge.status();
            let sites = status["report"]["sites"].as_array().unwrap();
            sites.iter().any(|one| one["name"] == site && !one["drill"].is_null())
        });
    }
}

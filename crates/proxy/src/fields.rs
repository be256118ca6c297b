//! The fields of a request as its client sent them, for as many attempts as it takes.
//!
//! hyper takes the map that it is given. The first attempt has the one that came, where there is room for what the edge adds;
//! for others the fields are kept in a list, which is smaller than a map and made in one go.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;

/// What an attempt adds to them, about.
const ADDED: usize = 8;

/// The fields of one request.
pub(crate) struct Fields {
    /// For the attempt that asks first.
    first: Mutex<Option<HeaderMap>>,
    kept: Vec<(HeaderName, HeaderValue)>,
}

impl Fields {
    pub(crate) fn new(fields: HeaderMap) -> Self {
        let kept = fields.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        Self { first: Mutex::new(Some(fields)), kept }
    }

    /// All of them, each time.
    pub(crate) fn take(&self) -> HeaderMap {
        let first = self.first.lock().take();
        first.unwrap_or_else(|| {
            let mut fields = HeaderMap::with_capacity(self.kept.len() + ADDED);
            for (name, value) in &self.kept {
                fields.append(name.clone(), value.clone());
            }
            fields
        })
    }

    /// From here on attempts have others.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut HeaderMap)) {
        let mut fields = self.take();
        change(&mut fields);
        *self = Self::new(fields);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        map
    }

    #[test]
    fn every_attempt_has_all_of_them_and_nothing_of_what_another_added() {
        let came = [("accept", "*/*"), ("via", "1.0 a"), ("via", "1.1 b"), ("x-own", "1")];
        let mut fields = Fields::new(map(&came));
        for _ in 0..3 {
            let mut taken = fields.take();
            assert_eq!(taken, map(&came));
            taken.append("via", HeaderValue::from_static("1.1 relais"));
            taken.remove("x-own");
        }
        fields.change(|fields| drop(fields.insert("range", HeaderValue::from_static("bytes=1-2"))));
        for _ in 0..2 {
            let taken = fields.take();
            assert_eq!((taken.len(), &taken["range"]), (5, &HeaderValue::from_static("bytes=1-2")));
            assert_eq!(taken.get_all("via").iter().collect::<Vec<_>>(), ["1.0 a", "1.1 b"]);
        }
    }

    #[test]
    fn what_is_kept_from_logs_and_tables_stays_so() {
        let mut secret = HeaderValue::from_static("secret");
        secret.set_sensitive(true);
        let fields = Fields::new([(http::header::AUTHORIZATION, secret)].into_iter().collect());
        assert!((0..2).all(|_| fields.take()["authorization"].is_sensitive()));
    }
}

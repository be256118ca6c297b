//! One CA as orders see it: which directory, whom it reaches us at, how long we wait. May talk to it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use instant_acme::Error;
use relais_core::config::Authority;
use serde::Deserialize;
use serde_json::Value;

use super::client::Client;
use super::fault::{FaultKind, OrderFault};
use super::wire::{Wire, persist};

/// How long we wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For one answer of the CA. Default 30 s: some CAs take that long for an order.
    pub call: Duration,
    /// For a whole order, DNS records apart. Default 5 min.
    pub order: Duration,
    /// For DNS records to be written, seen and removed, on top of it. Default 10 min.
    pub records: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { call: Duration::from_secs(30), order: Duration::from_secs(300), records: Duration::from_secs(600) }
    }
}

/// One CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ca {
    /// As declared.
    pub authority: Arc<Authority>,
    /// Its rehearsal instead: same words, certificates nobody trusts. An account there is another one.
    pub staging: bool,
    /// `[edge] email`.
    pub email: Option<String>,
    /// How long we wait for it.
    pub patience: Patience,
}

/// The addresses of a CA that we use ourselves (RFC 8555, section 7.1.1; RFC 9773, section 3).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Directory {
    pub(super) new_nonce: String,
    pub(super) new_account: String,
    pub(super) key_change: Option<String>,
    pub(super) renewal_info: Option<String>,
}

impl Ca {
    /// The directory in use.
    pub(super) fn url(&self) -> Result<&str, OrderFault> {
        let Authority { name, directory, staging, .. } = &*self.authority;
        match (self.staging, staging) {
            (false, _) => Ok(directory),
            (true, Some(staging)) => Ok(staging),
            (true, None) => Err(OrderFault::new(FaultKind::Refused, format!("the authority `{name}` has no staging"))
                .likely("set `staging` in `[authority.NAME]` to the directory of its rehearsal")),
        }
    }

    pub(super) fn wire(&self) -> Result<Wire, OrderFault> {
        let root = self.authority.root.as_deref().map(Path::new);
        let client = Client::new(root).map_err(|why| OrderFault::new(FaultKind::Internal, why))?;
        Ok(Wire::new(client, self.patience.call))
    }

    pub(super) async fn directory(&self, wire: &Wire) -> Result<Directory, OrderFault> {
        let url = self.url()?;
        let answer = persist!(wire, true, get(wire, url)).map_err(|error| wire.fault(&error))?;
        serde_json::from_value(answer).map_err(|fault| wire.fault(&Error::Json(fault)))
    }
}

/// GETs JSON.
pub(super) async fn get(wire: &Wire, url: &str) -> Result<Value, Error> {
    let request = Request::get(url).body(Bytes::new())?;
    let answer = wire.send(request).await.map_err(|fault| Error::Other(Box::new(fault)))?;
    read(&answer)
}

/// The JSON of an answer, or the problem it is.
pub(super) fn read(answer: &http::Response<Bytes>) -> Result<Value, Error> {
    if answer.status().is_success() {
        return Ok(serde_json::from_slice(answer.body()).or_else(|fault| match answer.body().is_empty() {
            true => Ok(Value::Null),
            false => Err(fault),
        })?);
    }
    Err(Error::Api(serde_json::from_slice(answer.body())?))
}

//! A web address of the operator's that changes the DNS: it is POSTed `{"action", "fqdn", "value", "host"}`. May call it.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Request, StatusCode, Uri};
use relais_core::config::Secret;

use super::fault::{DnsFault, quoted};
use super::{Action, CALL, Undo};
use crate::acme::client::Client;

pub(super) struct Webhook {
    url: Uri,
    /// The address without what may be secret in it.
    shown: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    secrets: Vec<String>,
    client: Client,
}

impl Webhook {
    pub(super) fn new(url: &str, headers: &[(String, Secret)], client: Client) -> Result<Self, String> {
        let url: Uri = url.parse().map_err(|_| "the `url` of the webhook is no web address".to_owned())?;
        let shown = format!("{}://{}{}", url.scheme_str().unwrap_or("?"), url.host().unwrap_or("?"), url.path());
        let mut secrets: Vec<String> = url.query().map(str::to_owned).into_iter().collect();
        let mut read = Vec::new();
        for (name, value) in headers {
            let unfit = |_| format!("the header `{name}` of the webhook cannot be sent: use visible ASCII characters");
            let mut sent = HeaderValue::from_str(value.expose()).map_err(|_| unfit(()))?;
            sent.set_sensitive(true);
            read.push((HeaderName::from_bytes(name.as_bytes()).map_err(|_| unfit(()))?, sent));
            // `Bearer SECRET`: the second word alone is the secret.
            secrets.extend(value.expose().split_whitespace().map(str::to_owned));
            secrets.push(value.expose().to_owned());
        }
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Ok(Self { url, shown, headers: read, secrets, client })
    }

    pub(super) async fn call(&self, action: Action, undo: &Undo) -> Result<(), DnsFault> {
        let body = serde_json::json!({
            "action": action.as_str(), "fqdn": undo.fqdn, "value": undo.value, "host": undo.host,
        });
        let mut request = Request::post(self.url.clone()).header(CONTENT_TYPE, "application/json");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Bytes::from(body.to_string())).map_err(|fault| {
            DnsFault::new(
                format!("the webhook {} cannot be called: {fault}", self.shown),
                "correct `url` and `headers`",
            )
        })?;
        let failed = |message: String, help: &str| {
            Err(DnsFault::new(format!("the webhook {} for {action} {} {message}", self.shown, undo.fqdn), help))
        };
        match self.client.send(request, CALL).await {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => {
                let secrets: Vec<&str> = self.secrets.iter().map(String::as_str).collect();
                let said = quoted(&String::from_utf8_lossy(answer.body()), &secrets);
                failed(format!("answered {}: {said}", answer.status()), way_out(answer.status()))
            }
            Err(fault) => failed(format!("failed: {fault}"), "check that it runs and that relais can reach it"),
        }
    }
}

fn way_out(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "check the `headers` that tell it who calls",
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => "check `url`: it must take a POST",
        status if status.is_redirection() => "give the address it redirects to in `url`",
        _ => "its own log should say why",
    }
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("url", &self.shown).finish_non_exhaustive()
    }
}

//! The account at a CA: its key, registering it, giving it another key. May talk to the CA; keeps nothing: the caller is
//! given every state of the account, and is waited for, before the CA learns of it. So nothing is lost with a crash.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{Request, Response};
use instant_acme::{Account, Error, Key};
use relais_core::config::{ExternalAccount, Secret};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ca::{Ca, Directory, read};
use super::eab;
use super::fault::{self, FaultKind, OrderFault};
use super::jose::{self, AccountKey, Signer};
use super::step::Steps;
use super::wire::{Wire, persist};

/// What is kept of an account, as JSON text. The first three fields are those the library writes.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Kept {
    /// Its URL at the CA; `None`: perhaps not registered yet.
    id: Option<String>,
    /// PKCS#8, base64url.
    key_pkcs8: String,
    directory: String,
    /// The key that is about to take the place of the other one, or has done so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next_pkcs8: Option<String>,
    /// Left behind by another program, and not used yet: whose key it is, is asked before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    taken_over: bool,
}

impl Kept {
    fn new(directory: &str) -> Result<Self, OrderFault> {
        Ok(Self {
            id: None,
            key_pkcs8: new_key()?,
            directory: directory.to_string(),
            next_pkcs8: None,
            taken_over: false,
        })
    }

    /// `None`: unreadable, of another directory, or with a key that nobody can sign with: a new account costs no
    /// certificate.
    fn parse(text: &Secret, directory: &str) -> Option<Self> {
        let kept: Self = serde_json::from_str(text.expose()).ok()?;
        let signs = |key: Vec<u8>| EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key).is_ok();
        (kept.directory == directory && kept.key().is_ok_and(signs)).then_some(kept)
    }

    fn key(&self) -> Result<Vec<u8>, OrderFault> {
        decode(&self.key_pkcs8)
    }

    fn secret(&self) -> Secret {
        Secret::new(&serde_json::to_string(self).unwrap_or_default())
    }
}

/// The text under which an account made by another program is kept: its URL at the CA and its key, PEM (PKCS#8 or SEC1).
///
/// # Errors
/// Why it cannot be taken over: only P-256 keys can.
pub fn import(directory: &str, id: &str, key_pem: &Secret) -> Result<Secret, String> {
    let key = PrivateKeyDer::from_pem_slice(key_pem.expose().as_bytes())
        .map_err(|fault| format!("its key cannot be read: {fault}"))?;
    // Caddy writes SEC1: what is kept is PKCS#8 whatever it was.
    let key = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, key.secret_der()).map_err(|_| {
        "its key is not ECDSA P-256; a new account will be made, which costs no certificate".to_string()
    })?;
    let key = key.to_pkcs8v1().map_err(|_| "its key cannot be written as PKCS#8".to_string())?;
    let key_pkcs8 = URL_SAFE_NO_PAD.encode(key.as_ref());
    let directory = directory.to_string();
    Ok(Kept { id: Some(id.to_string()), key_pkcs8, directory, next_pkcs8: None, taken_over: true }.secret())
}

/// The account of `held`, made and registered where there is none that the CA knows.
pub(super) async fn open(
    ca: &Ca,
    wire: &Wire,
    held: Option<&Secret>,
    steps: &Steps,
) -> Result<(Account, Kept), OrderFault> {
    let url = ca.url()?;
    let mut kept = match held.and_then(|held| Kept::parse(held, url)) {
        Some(kept) => kept,
        None => {
            let kept = Kept::new(url)?;
            steps.keep_account(kept.secret()).await?;
            kept
        }
    };
    if kept.taken_over {
        kept = recognised(ca, wire, kept, steps).await?;
    }
    if kept.next_pkcs8.is_some() {
        // A change of the key was cut off: now it is brought to its end.
        kept = change_key(ca, wire, kept, steps).await?;
    }
    if kept.id.is_none() {
        kept = register(ca, wire, kept, steps).await?;
    }
    Ok((account(wire, &kept).await?, kept))
}

/// As [`open`], when the CA has said that it does not know the account: registers its key again.
pub(super) async fn reopen(ca: &Ca, wire: &Wire, kept: Kept, steps: &Steps) -> Result<Account, OrderFault> {
    let kept = register(ca, wire, Kept { id: None, ..kept }, steps).await?;
    account(wire, &kept).await
}

async fn account(wire: &Wire, kept: &Kept) -> Result<Account, OrderFault> {
    let (id, key) = (kept.id.clone().unwrap_or_default(), kept.key()?);
    let made = persist!(wire, true, {
        let builder = Account::builder_with_http(Box::new(wire.clone()));
        builder.from_parts(id.clone(), PrivatePkcs8KeyDer::from(key.as_slice()), kept.directory.clone())
    });
    made.map_err(|error| wire.fault(&error))
}

/// Asks the CA whose key it is (RFC 8555, section 7.3.1). A Caddy that orders for two names at its first start registers
/// twice at once, and may keep the key of one account with the URL of the other.
async fn recognised(ca: &Ca, wire: &Wire, kept: Kept, steps: &Steps) -> Result<Kept, OrderFault> {
    let directory = ca.directory(wire).await?;
    let key = kept.key()?;
    let payload = json!({"onlyReturnExisting": true});
    let key = AccountKey(&key);
    let signer = Signer::Key(&key);
    let known = persist!(wire, true, post(wire, &directory, &signer, &directory.new_account, &payload));
    let id = match known {
        Ok(answer) => Some(url_of(&answer)?),
        Err(error) if is_unknown(&error) => None,
        Err(error) => return Err(wire.fault(&error)),
    };
    let kept = Kept { id, taken_over: false, ..kept };
    steps.keep_account(kept.secret()).await?;
    Ok(kept)
}

fn url_of(answer: &Response<Bytes>) -> Result<String, OrderFault> {
    let url = answer.headers().get(LOCATION).and_then(|url| url.to_str().ok());
    let missing = || OrderFault::new(FaultKind::Unreachable, "the CA gave no URL of the account");
    url.map(str::to_string).ok_or_else(missing)
}

/// Registers the key; registering it twice gives the same account (RFC 8555, section 7.3.1).
async fn register(ca: &Ca, wire: &Wire, kept: Kept, steps: &Steps) -> Result<Kept, OrderFault> {
    let directory = ca.directory(wire).await?;
    let key = kept.key()?;
    let key = AccountKey(&key);
    let mut payload = json!({"termsOfServiceAgreed": true});
    if let Some(email) = &ca.email {
        payload["contact"] = json!([format!("mailto:{email}")]);
    }
    if let Some((id, hmac)) = external(ca, wire).await? {
        let bound = jose::binding(&key, &directory.new_account, &id, &hmac);
        payload["externalAccountBinding"] =
            bound.map_err(|error| OrderFault::new(FaultKind::Internal, error.to_string()))?;
    }
    let signer = Signer::Key(&key);
    let done = persist!(wire, true, post(wire, &directory, &signer, &directory.new_account, &payload));
    let answer = done.map_err(|error| wire.fault(&error))?;
    let kept = Kept { id: Some(url_of(&answer)?), ..kept };
    steps.keep_account(kept.secret()).await?;
    Ok(kept)
}

async fn external(ca: &Ca, wire: &Wire) -> Result<Option<(String, Secret)>, OrderFault> {
    match &ca.authority.external_account {
        None => Ok(None),
        Some(ExternalAccount::Given { key_id, hmac }) => Ok(Some((key_id.clone(), hmac.clone()))),
        Some(ExternalAccount::ByEmail { url }) => eab::by_email(ca, wire, url).await.map(Some),
    }
}

/// Gives the account a new key (RFC 8555, section 7.3.5) and returns its new text. The old key opens nothing afterwards.
///
/// # Errors
/// As an order's; the account is unchanged then, or changed at the next order.
pub async fn rollover(ca: &Ca, held: &Secret, steps: &Steps) -> Result<Secret, OrderFault> {
    let work = async {
        let wire = ca.wire()?;
        let (_, mut kept) = open(ca, &wire, Some(held), steps).await?;
        kept.next_pkcs8 = Some(new_key()?);
        steps.keep_account(kept.secret()).await?;
        change_key(ca, &wire, kept, steps).await.map(|kept| kept.secret())
    };
    match tokio::time::timeout(ca.patience.order, work).await {
        Ok(result) => result,
        Err(_) => Err(OrderFault::new(FaultKind::Unreachable, "the CA took too long")),
    }
}

async fn change_key(ca: &Ca, wire: &Wire, kept: Kept, steps: &Steps) -> Result<Kept, OrderFault> {
    let directory = ca.directory(wire).await?;
    let Kept { id: Some(id), next_pkcs8: Some(next), .. } = kept.clone() else { return Ok(kept) };
    let Some(url) = directory.key_change.as_deref() else {
        return Err(OrderFault::new(FaultKind::Refused, "this CA cannot change the key of an account"));
    };
    let (old, new) = (kept.key()?, decode(&next)?);
    let (old, new) = (AccountKey(&old), AccountKey(&new));
    let ours = |error: Error| OrderFault::new(FaultKind::Internal, error.to_string());
    let change = json!({"account": id, "oldKey": old.jwk().map_err(ours)?});
    let inner = jose::signed(&Signer::Key(&new), None, url, &change).map_err(ours)?;
    let signer = Signer::Account(&old, &id);
    let done = persist!(wire, true, post(wire, &directory, &signer, url, &inner));
    if let Err(error) = done {
        // After a crash in between, the CA knows the new key and no longer the old one.
        let payload = json!({"onlyReturnExisting": true});
        let signer = Signer::Key(&new);
        let known = persist!(wire, true, post(wire, &directory, &signer, &directory.new_account, &payload));
        if known.is_err() {
            // It never happened: the old key stays.
            steps.keep_account(Kept { next_pkcs8: None, ..kept }.secret()).await?;
            return Err(wire.fault(&error));
        }
    }
    let kept = Kept { key_pkcs8: next, next_pkcs8: None, ..kept };
    steps.keep_account(kept.secret()).await?;
    Ok(kept)
}

/// POSTs a signed request under a fresh nonce.
async fn post(
    wire: &Wire,
    directory: &Directory,
    signer: &Signer<'_>,
    url: &str,
    payload: &Value,
) -> Result<Response<Bytes>, Error> {
    let lost = |fault| Error::Other(Box::new(fault));
    let nonce = wire.send(Request::head(&directory.new_nonce).body(Bytes::new())?).await.map_err(lost)?;
    let nonce = nonce.headers().get("replay-nonce").and_then(|nonce| nonce.to_str().ok());
    let body = jose::signed(signer, Some(nonce.ok_or(Error::Str("a nonce"))?), url, payload)?;
    let request = Request::post(url)
        .header(CONTENT_TYPE, "application/jose+json")
        .body(Bytes::from(serde_json::to_vec(&body)?))?;
    let answer = wire.send(request).await.map_err(lost)?;
    read(&answer)?;
    Ok(answer)
}

/// Whether a fault says that the CA does not know the account.
pub(super) fn is_unknown(error: &Error) -> bool {
    matches!(error, Error::Api(problem) if fault::word(problem) == "accountDoesNotExist")
}

fn new_key() -> Result<String, OrderFault> {
    let (_, key) = Key::generate_pkcs8().map_err(|error| OrderFault::new(FaultKind::Internal, error.to_string()))?;
    Ok(URL_SAFE_NO_PAD.encode(key.secret_pkcs8_der()))
}

fn decode(key: &str) -> Result<Vec<u8>, OrderFault> {
    URL_SAFE_NO_PAD.decode(key).map_err(|_| OrderFault::new(FaultKind::Internal, "the account's key is damaged"))
}

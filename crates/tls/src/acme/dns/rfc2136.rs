//! Dynamic update (RFC 2136) of a zone at its primary server, signed with TSIG (RFC 8945). May talk to that server, by TCP:
//! an update must not be lost or arrive twice.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hickory_proto::op::{Message, ResponseCode, update_message};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::rdata::tsig::{TsigAlgorithm, TsigError};
use hickory_proto::rr::{Name, RData, Record, RecordSet, RecordType, TSigner};
use relais_core::config::{self, Secret};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::ask::{Resolvers, ask, zone_in};
use super::fault::DnsFault;
use super::{Action, TTL};

/// How long a server may take for an update.
const PATIENCE: Duration = Duration::from_secs(15);
/// How far clocks may differ, in seconds; what all implementations take (RFC 8945, section 10).
const FUDGE: u16 = 300;

pub(super) struct Rfc2136 {
    server: SocketAddr,
    zone: Option<Name>,
    key: TSigner,
}

impl Rfc2136 {
    pub(super) fn new(
        server: SocketAddr,
        zone: Option<&str>,
        key_name: &str,
        algorithm: config::TsigAlgorithm,
        secret: &Secret,
    ) -> Result<Self, String> {
        let zone = zone.map(name).transpose().map_err(|fault| fault.to_string())?;
        let algorithm = match algorithm {
            config::TsigAlgorithm::HmacSha256 => TsigAlgorithm::HmacSha256,
            config::TsigAlgorithm::HmacSha384 => TsigAlgorithm::HmacSha384,
            config::TsigAlgorithm::HmacSha512 => TsigAlgorithm::HmacSha512,
        };
        let bytes = STANDARD.decode(secret.expose().trim());
        let bytes =
            bytes.map_err(|_| "the `secret` of the TSIG key is not base64; copy it from the server's key file")?;
        let key_name = name(key_name).map_err(|fault| fault.to_string())?;
        let key = TSigner::new(bytes, algorithm, key_name, FUDGE);
        Ok(Self { server, zone, key: key.map_err(|fault| format!("the TSIG key cannot be used: {fault}"))? })
    }

    pub(super) async fn run(
        &self,
        action: Action,
        fqdn: &Name,
        value: &str,
        resolvers: &Resolvers,
    ) -> Result<(), DnsFault> {
        let zone = self.zone_of(fqdn, resolvers).await?;
        let server = self.server;
        let record = Record::from_rdata(fqdn.clone(), TTL, RData::TXT(TXT::new(vec![value.to_owned()])));
        let mut records = RecordSet::new(fqdn.clone(), RecordType::TXT, 0);
        records.insert(record, 0);
        let message = match action {
            Action::Present => update_message::append(records, zone.clone(), false, false),
            // This value alone: others at the name belong to other orders.
            Action::Clean => update_message::delete_by_rdata(records, zone.clone(), false),
        };
        match tokio::time::timeout(PATIENCE, self.update(message)).await {
            Ok(Ok(answer)) => self.judge(&answer, &zone, fqdn),
            Ok(Err(fault)) => Err(DnsFault::new(
                format!("the update of {fqdn} at {server} failed: {fault}"),
                "check `server`, and that it can be reached by TCP",
            )),
            Err(_) => Err(DnsFault::new(
                format!("{server} did not answer the update of {fqdn} in {PATIENCE:?}"),
                "check `server`, and that it can be reached by TCP",
            )),
        }
    }

    /// The server itself knows best: a zone may be seen differently from outside.
    async fn zone_of(&self, fqdn: &Name, resolvers: &Resolvers) -> Result<Name, DnsFault> {
        if let Some(zone) = &self.zone {
            if zone.zone_of(fqdn) {
                return Ok(zone.clone());
            }
            return Err(DnsFault::new(
                format!("{fqdn} is not in the zone {zone} of the server {}", self.server),
                "correct `zone`, or leave it out to have it found",
            ));
        }
        let mut at = fqdn.clone();
        while !at.is_root() {
            match ask(self.server, &at, RecordType::SOA, false).await {
                Ok(answer) if answer.authoritative => match zone_in(&answer, fqdn) {
                    Some(zone) => return Ok(zone),
                    None => at = at.base_name(),
                },
                Ok(_) => at = at.base_name(),
                Err(_) => break,
            }
        }
        resolvers.zone(&fqdn.base_name()).await
    }

    /// Sends a signed message and reads the answer; one that reports success is believed only when it is signed.
    async fn update(&self, mut message: Message) -> io::Result<Message> {
        let bad = |fault: &dyn std::fmt::Display| io::Error::new(io::ErrorKind::InvalidData, fault.to_string());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|fault| bad(&fault))?.as_secs();
        let verifier = message.finalize(&self.key, now).map_err(|fault| bad(&fault))?;
        let answer = exchange(self.server, &message.to_vec().map_err(|fault| bad(&fault))?).await?;
        let read = Message::from_vec(&answer).map_err(|fault| bad(&fault))?;
        if read.id != message.id {
            return Err(bad(&"the answer is to another question"));
        }
        if read.response_code == ResponseCode::NoError
            && let Some(mut verifier) = verifier
        {
            verifier
                .verify(&answer)
                .map_err(|fault| bad(&format!("the answer is not signed as it must be: {fault}")))?;
        }
        Ok(read)
    }

    fn judge(&self, answer: &Message, zone: &Name, fqdn: &Name) -> Result<(), DnsFault> {
        let (server, key) = (self.server, self.key.signer_name());
        let code = answer.response_code;
        if code == ResponseCode::NoError {
            return Ok(());
        }
        let (why, help) = match answer.signature().and_then(|signature| signature.data.error) {
            // Some say this of a key that they know and that may not do this.
            Some(TsigError::BadKey) => (
                "it does not take the key".to_owned(),
                format!("check `key_name` ({key}) and `algorithm`, and that the key may update TXT records of {zone}"),
            ),
            Some(TsigError::BadSig) => {
                ("the signature is wrong".to_owned(), format!("check `secret` and `algorithm` of the key {key}"))
            }
            Some(TsigError::BadTime) => (
                "its clock and ours differ by more than 5 minutes".to_owned(),
                "set both clocks (NTP) and it works at the next attempt".to_owned(),
            ),
            _ => self.refusal(code, zone),
        };
        Err(DnsFault::new(format!("{server} refused the update of {fqdn}: {why}"), help))
    }

    fn refusal(&self, code: ResponseCode, zone: &Name) -> (String, String) {
        let key = self.key.signer_name();
        match code {
            ResponseCode::Refused => (
                code.to_string(),
                format!("allow the key {key} to update TXT records of {zone} (BIND: `update-policy`, Knot: `acl`)"),
            ),
            ResponseCode::NotAuth | ResponseCode::NotZone => (
                format!("it is not the primary server of {zone} ({code})"),
                "name the primary server in `server`, or the zone in `zone`".to_owned(),
            ),
            _ => (code.to_string(), "the server's log should say why".to_owned()),
        }
    }
}

/// One message each way, each with its length in front (RFC 1035, section 4.2.2).
async fn exchange(server: SocketAddr, message: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// A name as it stands on the wire, in lower case.
pub(super) fn name(text: &str) -> Result<Name, DnsFault> {
    let read = Name::from_ascii(text).map(|mut name| {
        name.set_fqdn(true);
        name.to_lowercase()
    });
    read.map_err(|fault| DnsFault::new(format!("`{text}` is no name that DNS can carry: {fault}"), "correct the name"))
}

impl std::fmt::Debug for Rfc2136 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rfc2136").field("server", &self.server).field("zone", &self.zone).finish_non_exhaustive()
    }
}

//! One request at a time to a daemon's admin socket (HTTP and JSON), blocking; and what to say when nobody answers.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::whom::{Sockets, Whom};
use super::{EXIT_FAILED, EXIT_UNREACHABLE, Failure};

/// Longest wait for an answer. A reload reads certificates and binds sockets before it answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why an order could not be given or was not followed.
#[derive(Debug)]
pub(crate) enum ClientError {
    /// Nobody answers at any of these sockets; what the system said for each.
    Unreachable(Nobody),
    /// The connection ended before the answer was whole.
    Broken(PathBuf, String),
    /// relais says no.
    Refused { error: String, help: Option<String> },
}

/// Where was looked in vain.
#[derive(Debug, Default)]
pub(crate) struct Nobody {
    /// The sockets, and what the system said of each.
    tried: Vec<(PathBuf, io::Error)>,
    /// The config file that named the only one.
    named_by: Option<PathBuf>,
}

impl Nobody {
    /// Somebody may be there, but this user may not ask.
    pub(crate) fn is_forbidden(&self) -> bool {
        self.tried.iter().any(|(_, error)| error.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// The admin API of one daemon. Connects anew for each call, so that it survives a restart of the daemon.
#[derive(Debug)]
pub(crate) struct Client {
    places: Vec<PathBuf>,
    named_by: Option<PathBuf>,
    patience: Duration,
}

impl Client {
    /// Talks to the first daemon that answers where this one may be.
    pub(crate) fn new(whom: &Whom) -> Result<Self, Failure> {
        let Sockets { places, named_by } = whom.sockets()?;
        Ok(Self { places, named_by, patience: PATIENCE })
    }

    /// Talks to the daemon at this socket alone.
    pub(crate) fn at(socket: PathBuf) -> Self {
        Self { places: vec![socket], named_by: None, patience: PATIENCE }
    }

    /// Waits so long for each answer.
    pub(crate) fn patient(&mut self, patience: Duration) -> &mut Self {
        self.patience = patience;
        self
    }

    pub(crate) fn get(&mut self, path: &str) -> Result<Value, ClientError> {
        self.call(&Method::GET, path, None)
    }

    pub(crate) fn post(&mut self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.call(&Method::POST, path, Some(body))
    }

    pub(crate) fn put(&mut self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.call(&Method::PUT, path, Some(body))
    }

    pub(crate) fn delete(&mut self, path: &str) -> Result<Value, ClientError> {
        self.call(&Method::DELETE, path, None)
    }

    /// After the first answer every call goes to the same daemon.
    fn call(&mut self, method: &Method, path: &str, body: Option<&Value>) -> Result<Value, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| ClientError::Broken(PathBuf::new(), format!("no runtime: {error}")))?;
        let mut tried = Vec::new();
        for socket in self.places.clone() {
            match runtime.block_on(exchange(&socket, method, path, body, self.patience)) {
                Err(ClientError::Unreachable(nobody)) => tried.extend(nobody.tried),
                Err(error) => return Err(error),
                Ok((status, bytes)) => {
                    self.places = vec![socket.clone()];
                    return answer(status, &bytes);
                }
            }
        }
        Err(ClientError::Unreachable(Nobody { tried, named_by: self.named_by.clone() }))
    }
}

async fn exchange(
    socket: &Path,
    method: &Method,
    path: &str,
    body: Option<&Value>,
    patience: Duration,
) -> Result<(StatusCode, Bytes), ClientError> {
    let stream = tokio::net::UnixStream::connect(socket)
        .await
        .map_err(|error| Nobody { tried: vec![(socket.to_owned(), error)], named_by: None })
        .map_err(ClientError::Unreachable)?;
    let broken = |error: String| ClientError::Broken(socket.to_owned(), error);
    let answer = tokio::time::timeout(patience, send(stream, method, path, body)).await;
    answer.map_err(|_| broken(format!("nothing within {} s", patience.as_secs())))?.map_err(broken)
}

async fn send(
    stream: tokio::net::UnixStream,
    method: &Method,
    path: &str,
    body: Option<&Value>,
) -> Result<(StatusCode, Bytes), String> {
    let words = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(words)?;
    // Ends with the runtime; its errors come out of the request as well.
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, "relais")
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::new(body.map(|value| Bytes::from(value.to_string())).unwrap_or_default()))
        .map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(words)?;
    let status = response.status();
    let bytes = response.into_body().collect().await.map_err(words)?.to_bytes();
    Ok((status, bytes))
}

/// The answer as JSON, or the refusal in it.
fn answer(status: StatusCode, bytes: &[u8]) -> Result<Value, ClientError> {
    let value = serde_json::from_slice(bytes).unwrap_or_else(|_| Value::from(String::from_utf8_lossy(bytes)));
    if status.is_success() {
        return Ok(value);
    }
    let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    Err(ClientError::Refused {
        error: text("error").or_else(|| text("message")).unwrap_or_else(|| format!("relais answered {status}")),
        help: text("help"),
    })
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Unreachable(nobody) => unreachable_daemon(&nobody),
            ClientError::Broken(socket, error) => {
                let message = format!("the relais on {} did not answer in full: {error}", socket.display());
                Failure::new(EXIT_UNREACHABLE, message).help("see its log; it may be stopping")
            }
            ClientError::Refused { error, help } => {
                let failure = Failure::new(EXIT_FAILED, error);
                match help {
                    Some(help) => failure.help(help),
                    None => failure,
                }
            }
        }
    }
}

fn unreachable_daemon(Nobody { tried, named_by }: &Nobody) -> Failure {
    if let Some((socket, error)) = tried.iter().find(|(_, error)| error.kind() == io::ErrorKind::PermissionDenied) {
        return Failure::new(
            EXIT_UNREACHABLE,
            format!("no permission to talk to relais on {}: {error}", socket.display()),
        )
        .help(permission_help(socket));
    }
    let places: Vec<String> = tried.iter().map(|(socket, error)| format!("{} ({error})", socket.display())).collect();
    let by = named_by.as_ref().map_or_else(String::new, |file| format!(", which {} names", file.display()));
    Failure::new(EXIT_UNREACHABLE, format!("no relais answers on {}{by}", places.join(", nor on ")))
        .help("is it running? start it with `relais run`, or `systemctl start relais`")
        .help("name its config with `--config FILE`, or its admin socket with `--socket PATH` or RELAIS_SOCKET; `relais run` logs it at start")
}

/// Which group to join.
fn permission_help(socket: &Path) -> String {
    // Where its folder is closed to this user, the folder's group is the one to join.
    let of = |path: &Path| std::fs::metadata(path).map(|meta| meta.gid()).ok();
    let gid = of(socket).or_else(|| socket.parent().and_then(of));
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    match gid.and_then(|gid| group_name(&groups, gid)) {
        Some(group) => format!("join its group: `sudo usermod -aG {group} $USER`, then log in again; or use sudo"),
        None => format!("join the group that `ls -l {}` shows, or use sudo", socket.display()),
    }
}

/// Name of a group in the text of `/etc/group`.
fn group_name(groups: &str, gid: u32) -> Option<&str> {
    let wanted = gid.to_string();
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == wanted).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_its_words_and_its_way_out() {
        let body = br#"{"error":"no site `dijn`","help":"did you mean `dijon`?"}"#;
        let Err(ClientError::Refused { error, help }) = answer(StatusCode::NOT_FOUND, body) else { panic!() };
        assert_eq!((error.as_str(), help.as_deref()), ("no site `dijn`", Some("did you mean `dijon`?")));
    }

    #[test]
    fn nobody_there_names_every_place_and_says_what_to_do() {
        let mut client = Client {
            places: ["/nonexistent/a.sock", "/nonexistent/b.sock"].map(PathBuf::from).to_vec(),
            named_by: None,
            patience: PATIENCE,
        };
        let failure = format!("{:?}", Failure::from(client.get("/status").unwrap_err()));
        for words in ["a.sock", "b.sock", "relais run", "--socket"] {
            assert!(failure.contains(words), "{failure}");
        }
    }

    #[test]
    fn the_group_to_join_is_named() {
        let groups = "root:x:0:\nrelais:x:998:ann\n";
        assert_eq!(group_name(groups, 998), Some("relais"));
        assert_eq!(group_name(groups, 7), None);
    }
}

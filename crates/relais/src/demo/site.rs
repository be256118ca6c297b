//! A site of the demo: backends that answer, can be cut off silently, and can be killed.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::gate::{Gate, Gated};
use super::ledger::Ledger;

/// The header that carries a POST's number.
pub(crate) const POST_ID: &str = "x-demo-post";
/// The header in which a backend names its site.
pub(crate) const SITE: &str = "x-demo-site";

/// What happens to a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// It answers.
    Well,
    /// The cable is cut: nothing arrives, nothing is refused, nothing closes.
    Cut,
    /// Its processes are dead: connections close, new ones are refused.
    Killed,
}

/// One site.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) name: &'static str,
    pub(crate) addresses: Vec<SocketAddr>,
    condition: watch::Sender<Condition>,
    gate: Gate,
}

impl Site {
    /// Starts `count` backends on free ports of 127.0.`network`.1 and up. Needs a runtime around it.
    pub(crate) fn start(name: &'static str, network: u8, count: u8, ledger: &Ledger) -> io::Result<Site> {
        let (condition, gate) = (watch::Sender::new(Condition::Well), Gate::default());
        let mut addresses = Vec::new();
        for host in 1..=count {
            let (listener, address) = listen(SocketAddr::from((Ipv4Addr::new(127, 0, network, host), 0)))?;
            addresses.push(address);
            let backend = Backend {
                site: name,
                address,
                condition: condition.subscribe(),
                gate: gate.clone(),
                ledger: ledger.clone(),
            };
            tokio::spawn(backend.live(listener));
        }
        Ok(Site { name, addresses, condition, gate })
    }

    /// Makes it so.
    pub(crate) fn become_(&self, condition: Condition) {
        match condition {
            Condition::Cut => self.gate.freeze(),
            Condition::Well | Condition::Killed => self.gate.thaw(),
        }
        self.condition.send_replace(condition);
    }
}

/// One process of a site.
#[derive(Debug, Clone)]
struct Backend {
    site: &'static str,
    address: SocketAddr,
    condition: watch::Receiver<Condition>,
    gate: Gate,
    ledger: Ledger,
}

/// A listening socket. It comes as socket2's type, because `listen` will be called on it again.
fn listen(address: SocketAddr) -> io::Result<(Socket, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let bound = socket.local_addr()?.as_socket().map_or(IpAddr::from(Ipv4Addr::LOCALHOST), |a| a.ip());
    let port = socket.local_addr()?.as_socket().map_or(0, |a| a.port());
    Ok((socket, SocketAddr::new(bound, port)))
}

const BACKLOG: i32 = 256;

/// What a request costs a backend: long enough that some are under way when their site dies.
const WORK: Duration = Duration::from_millis(10);

/// How long a dead process waits before it tries again to get its port back.
const AGAIN: Duration = Duration::from_millis(50);

impl Backend {
    async fn live(mut self, first: Socket) {
        let mut socket = Some(first);
        loop {
            let listener = match socket.take() {
                Some(socket) => socket,
                // Somebody may hold the port for a moment.
                None => match listen(self.address) {
                    Ok((socket, _)) => socket,
                    Err(_) => {
                        tokio::time::sleep(AGAIN).await;
                        continue;
                    }
                },
            };
            if self.serve(listener).await.is_err() {
                return;
            }
            // Killed: the listener is gone, its connections are going. Wait for better times.
            if self.condition.wait_for(|now| *now != Condition::Killed).await.is_err() {
                return;
            }
        }
    }

    /// Accepts until killed. An error means that the demo is over.
    async fn serve(&mut self, socket: Socket) -> Result<(), ()> {
        // A second handle on the same socket, to change its queue while tokio accepts from it.
        let queue = socket.try_clone().map_err(drop)?;
        let listener = TcpListener::from_std(socket.into()).map_err(drop)?;
        loop {
            let now = *self.condition.borrow_and_update();
            match now {
                Condition::Killed => return Ok(()),
                Condition::Cut => {
                    let _stuck = fill(&queue, self.address).await;
                    self.condition.changed().await.map_err(drop)?;
                    // Too long a queue does not matter: what is in it is served.
                    let _ = queue.listen(BACKLOG);
                }
                Condition::Well => tokio::select! {
                    accepted = listener.accept() => {
                        if let Ok((stream, _)) = accepted {
                            tokio::spawn(self.clone().connection(stream));
                        }
                    }
                    changed = self.condition.changed() => changed.map_err(drop)?,
                },
            }
        }
    }

    async fn connection(mut self, stream: TcpStream) {
        let mut condition = self.condition.clone();
        let _ = stream.set_nodelay(true);
        let io = TokioIo::new(Gated::new(stream, self.gate.clone()));
        self.condition.mark_unchanged();
        let answer = service_fn(|request| self.answer(request));
        tokio::select! {
            // How a connection ends is the edge's business.
            _ = hyper::server::conn::http1::Builder::new().serve_connection(io, answer) => {}
            _ = condition.wait_for(|now| *now == Condition::Killed) => {}
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let id = request.headers().get(POST_ID).and_then(|id| id.to_str().ok()).and_then(|id| id.parse().ok());
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let post = id.filter(|_| method == Method::POST);
        let body = request.into_body().collect().await.map(|body| body.to_bytes().len());
        let Ok(length) = body else {
            // The request never came whole: nothing is carried out.
            return Ok(Response::new(Full::default()));
        };
        if path != "/health" {
            self.ledger.write(self.site, post);
            tokio::time::sleep(WORK).await;
        }
        let text = format!("{} ({}) answers {method} {path}, {length} bytes received\n", self.site, self.address);
        Ok(with_site(Response::new(Full::new(Bytes::from(text))), self.site))
    }
}

fn with_site<B>(mut response: Response<B>, site: &'static str) -> Response<B> {
    response.headers_mut().insert(SITE, http::HeaderValue::from_static(site));
    response
}

/// Fills the kernel's queue of this listening socket, so that further connects get no answer at all, as from behind a
/// cut cable. Keep what is returned.
async fn fill(queue: &Socket, address: SocketAddr) -> Vec<TcpStream> {
    // With the shortest queue one or two connections fill it.
    let _ = queue.listen(0);
    let mut stuck = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(30), TcpStream::connect(address)).await {
        stuck.push(stream);
    }
    stuck
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const ASK: &[u8] = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
    const SOON: Duration = Duration::from_millis(200);
    const LONG: Duration = Duration::from_secs(10);

    async fn ask(stream: &mut TcpStream) -> io::Result<String> {
        stream.write_all(ASK).await?;
        let mut buffer = vec![0; 4096];
        let n = stream.read(&mut buffer).await?;
        Ok(String::from_utf8_lossy(&buffer[..n]).into_owned())
    }

    /// Until a new connection gets an answer.
    async fn answers(address: SocketAddr) -> String {
        let trying = async {
            loop {
                if let Ok(mut stream) = TcpStream::connect(address).await
                    && let Ok(answer) = ask(&mut stream).await
                    && !answer.is_empty()
                {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LONG, trying).await.unwrap()
    }

    #[tokio::test]
    async fn a_cut_site_is_silent_to_old_and_new_connections_and_comes_back() {
        let site = Site::start("dijon", 101, 1, &Ledger::default()).unwrap();
        let address = site.addresses[0];
        let mut old = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut old).await.unwrap().contains("dijon"));
        site.become_(Condition::Cut);
        assert!(tokio::time::timeout(SOON, ask(&mut old)).await.is_err(), "the old connection must freeze");
        let hangs = async {
            loop {
                // Connections that slipped in before the queue was full are silent too; wait for one that hangs.
                match tokio::time::timeout(SOON, TcpStream::connect(address)).await {
                    Err(_) => return,
                    Ok(Ok(stream)) => drop(stream),
                    Ok(Err(error)) => panic!("a cut site refuses nothing: {error}"),
                }
            }
        };
        tokio::time::timeout(LONG, hangs).await.unwrap();
        site.become_(Condition::Well);
        let mut rest = vec![0; 4096];
        let n = tokio::time::timeout(LONG, old.read(&mut rest)).await.unwrap().unwrap();
        assert!(String::from_utf8_lossy(&rest[..n]).contains("dijon"), "the old connection goes on");
        assert!(answers(address).await.contains("dijon"));
    }

    #[tokio::test]
    async fn a_killed_site_refuses_and_comes_back_on_the_same_port() {
        let site = Site::start("thory", 102, 1, &Ledger::default()).unwrap();
        let address = site.addresses[0];
        let mut old = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut old).await.unwrap().contains("thory"));
        site.become_(Condition::Killed);
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(LONG, old.read_to_end(&mut rest)).await.unwrap();
        assert!(closed.is_ok_and(|n| n == 0) || rest.is_empty(), "the old connection ends");
        let refused = async {
            while TcpStream::connect(address).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LONG, refused).await.unwrap();
        site.become_(Condition::Well);
        assert!(answers(address).await.contains("thory"));
    }
}

//! One request, top to bottom: the page to read first.
//!
//! What the request asks for and who sent it (`admit`), which service takes it (`respond`), and, for a service that
//! forwards, the attempts (`attempt::run`). Failures become answers in one place, at the end of `handle`.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, Uri, Version};
use http_body::Body;
use relais_core::config::{Action, Config, Redirect, Waiting};
use relais_core::{Pool, Snapshot};

use crate::access::Ticket;
use crate::answer::{self, Failure};
use crate::attempt;
use crate::connection::Client;
use crate::exchange::{Admitted, Exchange, routed_path};
use crate::forwarded;
use crate::ready::{self, Asked, Ready};
use crate::request_body::RequestBody;
use crate::response_body::ResponseBody;
use crate::upgrade;

/// What hyper is to send.
pub(crate) type Served = Result<Response<ResponseBody>, Infallible>;

/// Serves one request. What need not wait is done at once; the rest is in a box, as it is large and there only while there is
/// a request.
pub(crate) fn handle(
    client: Arc<Client>,
    request: Request<RequestBody>,
) -> Pin<Box<impl Future<Output = Served> + Send>> {
    let active = client.state.enter();
    let snapshot = client.worker.shared.snapshot.load_full();
    let edge = &snapshot.config.edge;
    let ready = client.worker.ready(&snapshot.config);
    let trusted = forwarded::is_trusted(client.peer.address, &edge.trusted_proxies);
    let address = forwarded::client_address(client.peer.address, request.headers(), &edge.trusted_proxies);
    let id = request_id(&client, request.headers(), &ready, trusted);
    let mut ticket = Ticket::new(Arc::clone(&snapshot.stats), snapshot.config.log.access, active, id, address);
    ticket.method = request.method().clone();
    ticket.version = request.version();
    ticket.target = request.uri().path_and_query().filter(|_| snapshot.config.log.access).cloned();

    let begun = match respond(&client, &snapshot, &ready, request, trusted, &mut ticket) {
        Ok(Reply::Asked(exchange)) => Begun::Asked(exchange),
        Ok(Reply::Ours(response)) => Begun::Known(Ok(Box::new(response))),
        Err(failure) => Begun::Known(Err(failure)),
    };
    // The room first, and nothing but pointers to begin with: so the future is made in its room. Else all of its kilobytes
    // would be put together on the stack and copied.
    let room = Box::new_uninit();
    Box::into_pin(Box::write(room, conclude(client, snapshot, ready, ticket, begun)))
}

/// What became of a request at once: it is for a backend, or has its answer. Little more than pointers, as it goes into the room.
enum Begun {
    Asked(Box<Exchange>),
    Known(Result<Box<Response<ResponseBody>>, Failure>),
}

/// The answer of the backend that is asked, or the one that is known.
async fn conclude(
    client: Arc<Client>,
    snapshot: Arc<Snapshot>,
    ready: Arc<Ready>,
    mut ticket: Box<Ticket>,
    begun: Begun,
) -> Served {
    let edge = &snapshot.config.edge;
    let outcome = match begun {
        Begun::Asked(exchange) => attempt::run(exchange, &mut ticket).await,
        Begun::Known(known) => known,
    };
    let mut response = outcome.unwrap_or_else(|failure| Box::new(answer::failure(failure, &edge.name)));
    if ticket.method == Method::CONNECT && ticket.tunnel.is_none() && response.status().is_success() {
        // To a CONNECT it would say that there is a tunnel.
        ticket.serving = None;
        *response = answer::failure(Failure::NotSwitched, &edge.name);
    }
    if let Some(name) = &ready.request_id {
        let mut id = ticket.request_id.clone();
        // Over HTTP/2 "sensitive" keeps a value out of the table of those that may come again. The first one brings the name in.
        id.set_sensitive(client.state.h2 && client.state.sent_id.swap(true, Relaxed));
        response.headers_mut().insert(name, id);
    }
    if client.tls.is_some()
        && let Some(pool) = ticket.pool.as_ref().filter(|pool| pool.service.hsts.is_some())
        && let Some(hsts) = client.worker.prepared(pool).hsts.clone()
    {
        response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, hsts);
    }
    if ticket.method == Method::HEAD {
        ResponseBody::only_head(&mut response);
    }
    ticket.answered(response.status().as_u16());
    client.state.answer_begins();
    if client.state.is_draining() && !client.state.h2 && ticket.tunnel.is_none() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(ends) = ticket.tunnel.take() {
        tokio::spawn(ends.run(ticket));
        return Ok(*response);
    }
    if ticket.version == Version::HTTP_10 && has_no_length(&response) {
        client.state.ends_with_connection();
    }
    response.body_mut().keep(ticket);
    Ok(*response)
}

/// Whether an HTTP/1.0 client can tell the end of an answer by that of the connection only.
fn has_no_length(response: &Response<ResponseBody>) -> bool {
    !response.headers().contains_key(header::CONTENT_LENGTH)
        && !response.body().is_end_stream()
        && response.body().size_hint().exact().is_none()
}

/// How a request is answered.
enum Reply {
    /// By us.
    Ours(Response<ResponseBody>),
    /// By a backend, which is to be asked.
    Asked(Box<Exchange>),
}

/// Finds the service and what it answers with. Nothing waits in here: the request is not kept in the future of `handle`.
fn respond(
    client: &Arc<Client>,
    snapshot: &Arc<Snapshot>,
    ready: &Arc<Ready>,
    request: Request<RequestBody>,
    trusted: bool,
    ticket: &mut Box<Ticket>,
) -> Result<Reply, Failure> {
    let host = client.asked(admit(&snapshot.config, &request)?)?;
    ticket.host = Some(Arc::clone(&host));
    if let Some(answer) = to_challenge(client, &host, request.uri().path()) {
        return Ok(Reply::Ours(answer));
    }
    let Some(pool) = snapshot.route(&host.name, routed_path(request.uri())) else {
        // Another connection would be of use only to who asks for another host than this one was opened for.
        let misdirected = !host.belongs_here && !trusted && !snapshot.knows_host(&host.name);
        return Err(if misdirected { Failure::Misdirected } else { Failure::NoRoute });
    };
    ticket.routed(pool);
    if let Some(failure) = unfit(client, pool, &host, trusted) {
        return Err(failure);
    }
    if let Some(port) = client.listener.redirect_to {
        // What HTTPS cannot answer yet is no place to send anyone.
        match client.worker.shared.certs.is_awaited(&host.name).then_some(snapshot.config.acme.waiting) {
            None => return Ok(Reply::Ours(to_https(&host.name, port, request.uri()))),
            Some(Waiting::Unavailable) => return Err(Failure::NoCertificate),
            Some(Waiting::Serve) => {}
        }
    }
    if let Some(location) = to_canonical(client, pool, &host, request.uri()) {
        return Ok(Reply::Ours(answer::redirect(308, &location)));
    }
    match &pool.service.action {
        Action::Redirect(redirect) => Ok(Reply::Ours(edited(client, pool, redirected(redirect, request.uri())))),
        Action::Respond(own) => Ok(Reply::Ours(edited(client, pool, answer::static_answer(own)))),
        Action::Forward(forward) => {
            let admitted = Admitted { ready, host: &host, trusted, id: &ticket.request_id, now: ticket.started };
            Exchange::new(client, snapshot, pool, forward, request, admitted).map(Reply::Asked)
        }
    }
}

/// Whether the connection is not the one this host must be asked on: the client has not given what the service asks of
/// its clients, or was shown another certificate than that of the host (RFC 9110 7.4). Peers that are trusted to speak for
/// others may have a name of their own choice in the handshake.
fn unfit(client: &Client, pool: &Pool, host: &Asked, trusted: bool) -> Option<Failure> {
    let wanted = &pool.service.client_tls;
    let Some(tls) = &client.tls else {
        let proof = wanted.certificate.as_ref().is_some_and(|rule| rule.required);
        return (proof && client.listener.redirect_to.is_none()).then_some(Failure::CertificateWanted);
    };
    if !tls.meets(wanted) {
        // A new handshake may ask for it: what is asked may have changed since the last one.
        client.state.drain();
        return Some(Failure::Misdirected);
    }
    let may = host.belongs_here || (trusted && wanted.certificate.is_none());
    (!may).then_some(Failure::Misdirected)
}

/// Where a CA looks for the answer to an http-01 challenge (RFC 8555, section 8.3).
const CHALLENGES: &str = "/.well-known/acme-challenge/";

/// The answer to a challenge, when it is ours: another program's may lie behind us.
fn to_challenge(client: &Client, host: &Asked, path: &str) -> Option<Response<ResponseBody>> {
    let token = path.strip_prefix(CHALLENGES)?;
    let text = client.worker.shared.certs.http01(&host.name, token)?;
    tracing::info!(host = &*host.name, peer = %client.peer.address, "a CA looked at the answer to its challenge (http-01)");
    Some(answer::challenge(&text))
}

/// Refuses requests that make no sense (RFC 9112 3.2, RFC 9110 7.2) and says which host the others are for, as sent.
fn admit<'a>(config: &Config, request: &'a Request<RequestBody>) -> Result<&'a str, Failure> {
    let limit = &config.edge.limit;
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target > limit.uri_bytes {
        return Err(Failure::TargetTooLong);
    }
    let bytes: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if bytes > limit.header_bytes || request.headers().len() > limit.header_count {
        return Err(Failure::HeadTooLarge);
    }
    if request.method() == Method::CONNECT {
        upgrade::admit(request)?;
    }
    if request.uri().authority().is_some() && request.uri().scheme().is_none() {
        // RFC 9112 3.2.3: an authority alone is a target for CONNECT only.
        return Err(Failure::BadRequest("request target is neither a path nor a URL"));
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let field = match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return Err(Failure::BadRequest("more than one Host")),
        (Some(value), None) => Some(value.to_str().map_err(|_| Failure::BadRequest("Host is not text"))?),
        (None, None) => None,
    };
    if field.is_none() && request.version() == Version::HTTP_11 {
        return Err(Failure::BadRequest("Host is missing"));
    }
    // An absolute target overrides Host (RFC 9112 3.2.2).
    let original = match (request.uri().authority(), field) {
        (Some(authority), _) => authority.as_str(),
        (None, Some(field)) => field,
        (None, None) if request.version() < Version::HTTP_11 => "",
        (None, None) => return Err(Failure::BadRequest("Host is missing")),
    };
    if let Some(field) = field
        && request.version() == Version::HTTP_2
        && !ready::is_same_host(field, original, request.uri().scheme())?
    {
        // RFC 9113 8.3.1: over HTTP/2 the two must agree.
        return Err(Failure::BadRequest("Host is not that of :authority"));
    }
    Ok(original)
}

/// `X-Request-Id`: taken over from trusted peers, made here otherwise.
fn request_id(client: &Client, headers: &HeaderMap, ready: &Ready, trusted: bool) -> HeaderValue {
    let given = ready.request_id.as_ref().filter(|_| trusted).and_then(|name| headers.get(name));
    match given {
        Some(id) if (1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic) => id.clone(),
        _ => ready::request_id(client.worker.roll(), client.worker.roll()),
    }
}

fn target_of(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |target| target.as_str())
}

fn to_https(host: &str, port: u16, uri: &Uri) -> Response<ResponseBody> {
    let location = if port == 443 {
        format!("https://{host}{}", target_of(uri))
    } else {
        format!("https://{host}:{port}{}", target_of(uri))
    };
    answer::redirect(308, &location)
}

fn to_canonical(client: &Client, pool: &Pool, host: &Asked, uri: &Uri) -> Option<String> {
    let canonical = pool.service.canonical.as_deref()?;
    if &*host.name == canonical {
        return None;
    }
    let scheme = client.peer.scheme;
    let port = host.port.map_or_else(String::new, |port| format!(":{port}"));
    Some(format!("{scheme}://{canonical}{port}{}", target_of(uri)))
}

fn redirected(redirect: &Redirect, uri: &Uri) -> Response<ResponseBody> {
    if !redirect.keep_path {
        return answer::redirect(redirect.status, &redirect.to);
    }
    let location = format!("{}{}", redirect.to.trim_end_matches('/'), target_of(uri));
    answer::redirect(redirect.status, &location)
}

/// A service's header edits hold for its own answers too.
fn edited(client: &Client, pool: &Pool, mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    client.worker.prepared(pool).response.apply(response.headers_mut());
    response
}

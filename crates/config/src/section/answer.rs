//! What relais answers by itself (`redirect`, `respond`, `maintenance`) and the headers it changes.

use crate::fault::Fault;
use crate::node::Node;
use crate::reader::Reader;
use crate::section::policy::secret;
use crate::section::{header, header_key, headers, refuse_twins};
use crate::shape::{self, Shape};
use crate::value::http;
use crate::{HeaderEdits, Redirect, StaticAnswer};

/// Reads `redirect`.
pub(crate) fn redirect(node: &Node<'_>) -> Option<Redirect> {
    if node.is_string() {
        return Some(Redirect { to: node.parsed(http::redirect_target)?, status: 308, keep_path: true });
    }
    if !node.is_table() {
        node.wrong_type("a URL, a path or a table", Some("\"https://example.org\"".to_owned()));
        return None;
    }
    let table = node.table(&shape::REDIRECT, "")?;
    if !table.has("to") {
        table.missing("to", "\"https://example.org\"");
    }
    let status = table.get("status").and_then(|node| {
        let status = node.integer(100..=599)?;
        if matches!(status, 301 | 302 | 303 | 307 | 308) {
            return Some(status);
        }
        let fault = Fault::new(format!("{status} is not the status of a redirect")).label("301, 302, 303, 307 or 308");
        node.error(fault.help("write 308 (permanent) or 307 (for now); both keep the method"));
        None
    });
    let keep_path = table.boolean("keep_path").unwrap_or(true);
    Some(Redirect { to: table.parsed("to", http::redirect_target)?, status: status.unwrap_or(308), keep_path })
}

/// Reads a static answer; `usual` is its status when none is set.
pub(crate) fn fixed(node: &Node<'_>, shape: &'static Shape, usual: u16) -> Option<StaticAnswer> {
    let table = node.table(shape, &format!("write `{} = {{ body = \"...\" }}`", node.key))?;
    let status = table.integer("status", 200..=599).unwrap_or(usual);
    let (here, file) = (table.get("body"), table.get("body_file"));
    if let (Some(_), Some(file)) = (&here, &file) {
        let fault = Fault::new("`body` and `body_file` are both set").label("the second one");
        table.cx.error(file.key_span.clone(), fault.help("keep one of them"));
    }
    let name = file.as_ref().and_then(Node::string);
    let bytes = match (&here, &file, &name) {
        (Some(node), _, _) => node.string().map(String::into_bytes),
        (None, Some(node), Some(name)) => table.cx.file(name, &node.span()),
        _ => None,
    };
    if let (Some(node), 204 | 205 | 304) = (here.or(file), status) {
        let fault = Fault::new(format!("an answer with status {status} has no body")).label("never sent");
        node.error(fault.help("take the body out, or write `status = 200`"));
    }
    let usual_type = || http::media_type(name.as_deref().unwrap_or_default()).to_owned();
    Some(StaticAnswer {
        status,
        body: bytes.unwrap_or_default().into(),
        content_type: table.parsed("content_type", http::header_value).unwrap_or_else(usual_type),
        headers: headers(table.get("headers"), answer_header),
    })
}

fn answer_header(text: &str) -> Result<String, Fault> {
    let name = http::editable_header(text)?;
    if name == "content-type" {
        let fault = Fault::new("the type of an answer is set by `content_type`").label("not as a header");
        return Err(fault.help("write `content_type = \"text/html; charset=utf-8\"` beside `body`"));
    }
    Ok(name)
}

/// Reads `request_headers`.
pub(crate) fn request_edits(service: &Reader<'_>) -> HeaderEdits {
    edits(&service.section("request_headers", &shape::REQUEST_HEADERS), |text| {
        let name = http::editable_header(text)?;
        if name == "host" {
            let fault = Fault::new("`Host` is set by `upstream.host`").label("not as a header");
            return Err(fault.help("write `upstream = { host = \"backend\" }`, or the name to send"));
        }
        Ok(name)
    })
}

/// Reads `response_headers`.
pub(crate) fn response_edits(service: &Reader<'_>) -> HeaderEdits {
    edits(&service.section("response_headers", &shape::RESPONSE_HEADERS), http::editable_header)
}

fn edits(table: &Reader<'_>, name: fn(&str) -> Result<String, Fault>) -> HeaderEdits {
    let (plain, secret) = (named(table.get("set"), "\"value\""), named(table.get("set_file"), "\"/run/secrets/x\""));
    // Names differ by more than case, and `set` and `set_file` share them.
    let keys = plain.iter().chain(&secret).map(|node| (node.key.to_ascii_lowercase(), node.key_span.clone()));
    refuse_twins(table.cx, "header", &keys.collect::<Vec<_>>());
    let mut set: Vec<_> = plain.iter().filter_map(|node| header(node, name)).collect();
    set.extend(secret.iter().filter_map(|node| Some((header_key(node, name)?, secret_value(node)?))));
    let mut add = Vec::new();
    for node in named(table.get("add"), "\"value\"") {
        let Some(name) = header_key(&node, name) else { continue };
        for entry in node.one_or_many() {
            add.extend(entry.parsed(http::header_value).map(|value| (name.clone(), value)));
        }
    }
    let removed = table.get("remove").and_then(|node| node.list()).unwrap_or_default();
    HeaderEdits { remove: removed.iter().filter_map(|entry| entry.parsed(name)).collect(), set, add }
}

fn named<'a>(node: Option<Node<'a>>, example: &str) -> Vec<Node<'a>> {
    let nodes = node.and_then(|node| node.named(&format!("write `{} = {{ X-Name = {example} }}`", node.key)));
    nodes.unwrap_or_default()
}

/// The value of a header from a file.
fn secret_value(node: &Node<'_>) -> Option<String> {
    let text = String::from_utf8(secret(node)?).map_err(|_| Fault::new("the file holds bytes that are not text"));
    let value = text.and_then(|text| http::header_value(&text));
    value.map_err(|fault| node.error(fault)).ok()
}

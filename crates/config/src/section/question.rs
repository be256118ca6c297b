//! What a check asks, kind by kind: the keys of `health` that are not timers.

use crate::fault::Fault;
use crate::node::Node;
use crate::reader::Reader;
use crate::section::headers;
use crate::value::{address, bytes, http};
use crate::{CheckKind, Exchange, ExecCheck, GrpcCheck, HttpCheck};

/// A request with every key at its default.
pub(crate) fn request(path: String) -> HttpCheck {
    HttpCheck { path, method: "GET".to_owned(), host: None, status: vec![(200, 399)], body: None, headers: Vec::new() }
}

/// Reads the keys of a check over HTTP.
pub(crate) fn http(table: &Reader<'_>) -> HttpCheck {
    let mut check = request(table.parsed("path", http::path_and_query).unwrap_or_else(|| "/".to_owned()));
    if let Some(method) = table.parsed("method", http::token) {
        check.method = method;
    }
    check.host = table.parsed("host", address::host_header);
    if let Some(node) = table.get("status") {
        check.status = statuses(&node);
    }
    check.body = table.string("body");
    if let (Some(node), "HEAD") = (table.get("body"), check.method.as_str()) {
        let fault = Fault::new("an answer to HEAD has no body").label("cannot be found");
        node.error(fault.help("take `body` out, or write `method = \"GET\"`"));
    }
    check.headers = headers(table.get("headers"), check_header);
    check
}

fn check_header(text: &str) -> Result<String, Fault> {
    let name = http::editable_header(text)?;
    if name == "host" {
        let fault = Fault::new("`Host` of a check is set by `host`").label("not as a header");
        return Err(fault.help("write `host = \"api.example.org\"` beside `path`"));
    }
    Ok(name)
}

fn statuses(node: &Node<'_>) -> Vec<(u16, u16)> {
    let one = |node: Node<'_>| {
        if node.is_integer() {
            return node.integer(100..=599).map(|status| (status, status));
        }
        if node.is_string() {
            return node.parsed(http::status_range);
        }
        node.wrong_type("a status or a range of statuses", Some("\"200-399\"".to_owned()));
        None
    };
    let entries = node.one_or_many();
    if entries.is_empty() && node.is_list() {
        node.error(Fault::new("no status would be good").label("empty").help("write `status = [200, \"300-399\"]`"));
    }
    entries.into_iter().filter_map(one).collect()
}

/// Reads `send` and `expect`. Without either it is a plain connect.
pub(crate) fn exchange(table: &Reader<'_>) -> CheckKind {
    let expect = |text: &str| {
        let fault = Fault::new("every answer would be good").label("empty");
        let help = "write what the answer must hold, or take `expect` out: then none is awaited";
        if text.is_empty() { Err(fault.help(help)) } else { bytes::escaped(text) }
    };
    let exchange = Exchange {
        send: table.parsed("send", bytes::escaped).unwrap_or_default(),
        expect: table.parsed("expect", expect).unwrap_or_default(),
    };
    if exchange.send.is_empty() && exchange.expect.is_empty() {
        return CheckKind::Tcp;
    }
    CheckKind::Exchange(exchange)
}

/// Reads the keys of a gRPC check.
pub(crate) fn grpc(table: &Reader<'_>) -> GrpcCheck {
    GrpcCheck { service: table.string("service").unwrap_or_default(), host: table.parsed("host", address::host_header) }
}

/// Reads `command`: the program's file, then its arguments. `None` when a mistake was noted.
pub(crate) fn exec(table: &Reader<'_>) -> Option<ExecCheck> {
    let Some(node) = table.get("command") else {
        table.missing("command", "[\"/usr/local/bin/check\", \"argument\"]");
        return None;
    };
    command(&node)
}

/// Reads a command: a program's file, then its arguments. `None` when a mistake was noted.
pub(crate) fn command(node: &Node<'_>) -> Option<ExecCheck> {
    let entries = node.one_or_many();
    let Some((program, arguments)) = entries.split_first() else {
        let fault = Fault::new("no program to run").label("empty");
        node.error(fault.help("write `command = [\"/usr/local/bin/check\", \"argument\"]`"));
        return None;
    };
    if let Some(text) = program.string().filter(|text| node.is_string() && text.contains(char::is_whitespace)) {
        let words: Vec<String> = text.split_whitespace().map(|word| format!("\"{word}\"")).collect();
        let fault = Fault::new("a command is a list: no shell takes it apart").label("has spaces");
        node.error(fault.help(format!("write `command = [{}]`", words.join(", "))));
        return None;
    }
    let arguments: Vec<String> = arguments.iter().filter_map(Node::string).collect();
    let file = program.file_path()?;
    if let Some(fault) = (node.cx.lookup().program)(&file) {
        node.cx.file_fault(program.span(), "the program", fault);
    }
    Some(ExecCheck { program: file, arguments })
}

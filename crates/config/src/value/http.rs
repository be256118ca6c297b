//! The words of HTTP: tokens, header names and values, paths, statuses, redirect targets (RFC 9110).

use crate::fault::Fault;

/// Headers that belong to one connection (RFC 9110 section 7.6.1) or frame the message: relais itself writes them.
const CONNECTION: &[&str] = &[
    "connection",
    "content-length",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Reads a token (RFC 9110 section 5.6.2): a method, a cookie name, a product name.
pub(crate) fn token(text: &str) -> Result<String, Fault> {
    let good = |letter: char| letter.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(letter);
    if !text.is_empty() && text.chars().all(good) {
        return Ok(text.to_owned());
    }
    Err(Fault::new(format!("`{}` is not one plain word", text.escape_debug()))
        .label("letters, digits, `-` and `_` only"))
}

/// Reads a header name; lower case.
pub(crate) fn header_name(text: &str) -> Result<String, Fault> {
    token(text).map(|name| name.to_ascii_lowercase()).map_err(|fault| {
        let fault = Fault { message: format!("`{}` is not a header name", text.escape_debug()), ..fault };
        match text.split_once(':') {
            Some((name, _)) if !name.is_empty() => fault.help(format!("write the name alone: `{name}`")),
            _ => fault,
        }
    })
}

/// Reads the name of a header that may be changed: not one of the connection, which relais itself writes.
pub(crate) fn editable_header(text: &str) -> Result<String, Fault> {
    let name = header_name(text)?;
    if CONNECTION.contains(&name.as_str()) {
        let fault = Fault::new(format!("`{text}` cannot be changed: it belongs to one connection, not to the message"));
        return Err(fault
            .label("relais writes this header itself")
            .help("take it out; relais sets it as needed on each side"));
    }
    Ok(name)
}

/// Reads a header value: visible ASCII, space and tab. The text is not repeated in the fault, it may be a secret.
pub(crate) fn header_value(text: &str) -> Result<String, Fault> {
    match text.chars().find(|letter| !matches!(letter, ' '..='~' | '\t')) {
        Some(bad) => {
            let fault = Fault::new(format!("`{}` cannot be in a header value", bad.escape_debug()));
            Err(fault.label("visible ASCII only").help("write it without line breaks and in ASCII"))
        }
        None => Ok(text.to_owned()),
    }
}

/// Reads a path prefix of a route, without its closing slash.
pub(crate) fn path_prefix(text: &str) -> Result<String, Fault> {
    if let Some(prefix) = text.strip_suffix('*') {
        let fault = Fault::new(format!("`{text}` has a `*`, but paths are prefixes")).label("drop the `*`");
        return Err(fault.help(format!("write `{}`: it matches what lies below too", plain_prefix(prefix))));
    }
    Ok(plain_prefix(&path(text, "?")?))
}

fn plain_prefix(text: &str) -> String {
    let prefix = text.trim_end_matches('/');
    if prefix.is_empty() { "/".to_owned() } else { prefix.to_owned() }
}

/// Reads a path with its query.
pub(crate) fn path_and_query(text: &str) -> Result<String, Fault> {
    path(text, "")
}

fn path(text: &str, refused: &str) -> Result<String, Fault> {
    let wrong = |why: String| Fault::new(format!("`{}` is not a path", text.escape_debug())).label(why);
    if !text.starts_with('/') {
        let path = text.split_once("://").map_or(text, |(_, rest)| rest.split_once('/').map_or("", |(_, path)| path));
        return Err(
            wrong("a path begins with `/`".to_owned()).help(format!("write `/{}`", path.trim_start_matches('/')))
        );
    }
    let allowed = |letter: char| letter.is_ascii_graphic() && letter != '#' && !refused.contains(letter);
    match text.chars().find(|letter| !allowed(*letter)) {
        Some(bad) => {
            let fault = wrong(format!("`{}` cannot be here", bad.escape_debug()));
            Err(if bad.is_ascii_graphic() {
                fault
            } else {
                fault.help("write it percent-encoded, as `%20` for a space")
            })
        }
        None => Ok(text.to_owned()),
    }
}

/// Reads where a redirect leads: an absolute `http://` or `https://` URL, or a path.
pub(crate) fn redirect_target(text: &str) -> Result<String, Fault> {
    if text.starts_with('/') && !text.starts_with("//") {
        return path_and_query(text);
    }
    let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
        let fault = Fault::new(format!("`{}` is not where a redirect can lead", text.escape_debug()));
        let fault = fault.label("expected an absolute URL or a path");
        return Err(fault.help(format!("write `https://{}` or `/path`", text.trim_start_matches('/').escape_debug())));
    };
    visible_url(text, rest)
}

/// Reads an absolute `http://` or `https://` URL.
pub(crate) fn web_address(text: &str) -> Result<String, Fault> {
    match text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) {
        Some(rest) => visible_url(text, rest),
        None => {
            let fault = Fault::new(format!("`{}` is not a web address", text.escape_debug())).label("expected a URL");
            Err(fault.help(format!("write `https://{}`", text.trim_start_matches('/').escape_debug())))
        }
    }
}

/// Reads an absolute `https://` URL.
pub(crate) fn secure_address(text: &str) -> Result<String, Fault> {
    if let Some(rest) = text.strip_prefix("http://") {
        let fault = Fault::new("a CA is spoken to over HTTPS only").label("in plain text (RFC 8555, section 6.1)");
        return Err(fault.help(format!("write `https://{}`", rest.escape_debug())));
    }
    web_address(text)
}

fn visible_url(text: &str, rest: &str) -> Result<String, Fault> {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    super::address::host_header(authority)?;
    match text.chars().find(|letter| !letter.is_ascii_graphic()) {
        Some(bad) => Err(Fault::new(format!("`{}` cannot be in a URL", bad.escape_debug()))
            .label("visible ASCII only")
            .help("write it percent-encoded, as `%20` for a space")),
        None => Ok(text.to_owned()),
    }
}

/// Reads statuses as `200` or `300-399`.
pub(crate) fn status_range(text: &str) -> Result<(u16, u16), Fault> {
    let wrong = || Fault::new(format!("`{text}` is not a range of statuses")).label("expected `200-399`");
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.trim().parse::<u16>().ok().filter(|status| (100..=599).contains(status));
    match (number(low), number(high)) {
        (Some(low), Some(high)) if low <= high => Ok((low, high)),
        (Some(low), Some(high)) => Err(wrong().help(format!("write `{high}-{low}`"))),
        _ => Err(wrong().help("statuses are 100 to 599: write `200`, `[200, 204]` or `\"200-399\"`")),
    }
}

/// The media type of a file by its ending.
pub(crate) fn media_type(file: &str) -> &'static str {
    let ending = file.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
    match ending.as_deref() {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("json") => "application/json",
        Some("xml") => "application/xml",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("gif") => "image/gif",
        Some("webp") => "image/webp",
        Some("ico") => "image/x-icon",
        Some("pdf") => "application/pdf",
        _ => "text/plain; charset=utf-8",
    }
}

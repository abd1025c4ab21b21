//! Request and expected answer of an HTTP check, for any version of HTTP.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use regex::bytes::Regex;

use super::problem::{MAX_BODY_LIMIT, ProbeError, compile};
use crate::{error::CheckError, settings::HttpCheck};

/// Headers that the check sets itself, for the framing and the host.
const OUR_HEADERS: [&str; 4] = ["host", "connection", "content-length", "transfer-encoding"];

/// Data that checkers of the same settings share.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) head_request: bool,
    /// Up to the Host header's value where it depends on the target, else all.
    request: String,
    host_missing: bool,
    /// Not written behind the host.
    default_port: u16,
    /// The part after the Host header's value.
    rest: String,
    pub(super) expect: Expectation,
}

/// The answer that a check wants.
#[derive(Debug)]
pub(super) struct Expectation {
    /// Scheme of the URL, for error texts.
    scheme: &'static str,
    path: String,
    status: Arc<[u16]>,
    body: Option<(Regex, Arc<str>)>,
    /// Bytes of the body that are looked at.
    pub(super) max_body: usize,
}

impl Expectation {
    /// The expectations of `settings`.
    ///
    /// # Errors
    /// When the pattern is invalid.
    pub(super) fn new(settings: &HttpCheck) -> Result<Self, ProbeError> {
        let body = match &settings.expect_body {
            Some(pattern) => Some((compile("expect_body", pattern)?, pattern.as_str().into())),
            None => None,
        };
        Ok(Self {
            scheme: if settings.tls.is_some() { "https" } else { "http" },
            path: settings.path.clone(),
            status: BTreeSet::from_iter(&settings.expect_status)
                .into_iter()
                .copied()
                .collect(),
            body,
            max_body: settings.max_body,
        })
    }

    /// Whether the head of the answer decides, without its body.
    pub(super) fn wants_head_only(&self) -> bool {
        self.body.is_none()
    }

    /// Whether the answer of `target` is the expected one.
    pub(super) fn judge(&self, target: SocketAddr, status: u16, body: &[u8]) -> Result<(), CheckError> {
        if !self.status.contains(&status) {
            return Err(CheckError::Status {
                url: url(self.scheme, target, &self.path),
                status,
                expected: Arc::clone(&self.status),
            });
        }
        match &self.body {
            Some((regex, pattern)) if !regex.is_match(body) => Err(CheckError::Body {
                url: url(self.scheme, target, &self.path),
                pattern: Arc::clone(pattern),
                examined: body.len(),
            }),
            Some(_) | None => Ok(()),
        }
    }
}

/// The URL of the request, with the checked address in place of the request's host.
pub(super) fn url(scheme: &str, target: SocketAddr, path: &str) -> Arc<str> {
    format!("{scheme}://{target}{path}").into()
}

/// Name of this client, as servers see it.
pub(super) const USER_AGENT: &str = concat!("lb-health/", env!("CARGO_PKG_VERSION"));

/// Whether servers ask for the length of the body that requests of this method usually have (RFC 9110 section 8.6).
pub(super) fn has_body(method: &str) -> bool {
    matches!(method, "POST" | "PUT" | "PATCH")
}

/// The host of a request to `target` where the settings have none.
pub(super) fn host_of(target: SocketAddr, default_port: u16) -> String {
    match target {
        SocketAddr::V4(v4) if v4.port() == default_port => v4.ip().to_string(),
        SocketAddr::V6(v6) if v6.port() == default_port => format!("[{}]", v6.ip()),
        // Not the whole address: a scope means nothing to the server.
        SocketAddr::V6(v6) => format!("[{}]:{}", v6.ip(), v6.port()),
        SocketAddr::V4(v4) => v4.to_string(),
    }
}

impl Plan {
    /// The request of `settings`.
    ///
    /// # Errors
    /// The first of [`problems`].
    pub(super) fn new(settings: &HttpCheck) -> Result<Self, ProbeError> {
        if let Some(problem) = problems(settings).into_iter().next() {
            return Err(problem);
        }
        let HttpCheck {
            method,
            path,
            host,
            headers,
            expect_status: _,
            expect_body: _,
            max_body: _,
            keep_alive: _,
            tls,
        } = settings;
        Ok(Self {
            head_request: method == "HEAD",
            request: format!(
                "{method} {path} HTTP/1.1\r\nHost: {}",
                host.as_deref().unwrap_or_default()
            ),
            host_missing: host.is_none(),
            default_port: if tls.is_some() { 443 } else { 80 },
            rest: rest_of_request(method, headers),
            expect: Expectation::new(settings)?,
        })
    }

    /// The request to `target`; with `Connection: close` if it is the `last` one of its connection (RFC 9112 section
    /// 9.6).
    pub(super) fn request(&self, target: SocketAddr, last: bool) -> String {
        let mut request = String::with_capacity(self.request.len() + 64 + self.rest.len());
        request.push_str(&self.request);
        if self.host_missing {
            request.push_str(&host_of(target, self.default_port));
        }
        if last {
            request.push_str("\r\nConnection: close");
        }
        request.push_str(&self.rest);
        request
    }
}

/// All errors in `settings`, including answers that cannot exist.
pub(super) fn problems(settings: &HttpCheck) -> Vec<ProbeError> {
    let HttpCheck {
        method,
        path,
        host,
        headers,
        expect_status,
        expect_body,
        max_body,
        keep_alive: _,
        tls,
    } = settings;
    let mut problems = Vec::new();
    if !is_token(method) || method == "CONNECT" {
        problems.push(ProbeError::Method(method.clone()));
    }
    if !path.starts_with('/') || !is_visible(path) {
        problems.push(ProbeError::Path(path.clone()));
    }
    if let Some(host) = host.as_ref().filter(|host| !is_visible(host)) {
        problems.push(ProbeError::Host(host.clone()));
    }
    for (place, (name, value)) in headers.iter().enumerate() {
        if !is_token(name) || OUR_HEADERS.iter().any(|ours| name.eq_ignore_ascii_case(ours)) {
            problems.push(ProbeError::HeaderName(name.clone()));
        }
        if value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
            problems.push(ProbeError::HeaderValue(name.clone()));
        }
        let before = headers.iter().take(place);
        if before.clone().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
            problems.push(ProbeError::HeaderTwice(name.clone()));
        }
    }
    if expect_status.is_empty() || !expect_status.iter().all(|status| (200..=599).contains(status)) {
        problems.push(ProbeError::Status);
    }
    if let Some(Err(problem)) = expect_body
        .as_deref()
        .map(|pattern| compile("expect_body", pattern))
    {
        problems.push(problem);
    }
    problems.extend(
        tls.iter()
            .flat_map(|tls| super::tls::problems(tls, host.as_deref())),
    );
    if *max_body > MAX_BODY_LIMIT || (*max_body == 0 && expect_body.is_some()) {
        problems.push(ProbeError::MaxBody);
    }
    problems
}

fn rest_of_request(method: &str, headers: &[(String, String)]) -> String {
    let mut rest = "\r\n".to_owned();
    for (name, value) in headers {
        rest.push_str(&format!("{name}: {value}\r\n"));
    }
    if !headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("user-agent"))
    {
        rest.push_str(&format!("User-Agent: {USER_AGENT}\r\n"));
    }
    if has_body(method) {
        rest.push_str("Content-Length: 0\r\n");
    }
    rest.push_str("\r\n");
    rest
}

/// RFC 9110 section 5.6.2.
fn is_token(text: &str) -> bool {
    let special = b"!#$%&'*+-.^_`|~";
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || special.contains(&byte))
}

fn is_visible(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

//! Is an HTTP/1.1 request answered as expected?

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use regex::bytes::Regex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    Checker,
    connect::Budget,
    response::{Malformed, ResponseReader},
};
use crate::health::{
    error::{CheckError, Latency, Stage},
    settings::HttpCheck,
};

/// Every so many checks use a new connection, so that a network that lets old connections live but no new ones begin
/// still shows.
pub const FRESH_EVERY: u32 = 10;
/// Bytes read at once.
const READ_SIZE: usize = 4096;
/// Longest body that settings can ask for; it is held in memory for each check in flight.
pub const MAX_BODY_LIMIT: usize = 1024 * 1024;

/// Why settings make no HTTP check.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProbeError {
    /// No HTTP token, or CONNECT.
    #[error("\"{0}\" is no method of a check")]
    Method(String),
    /// Not an absolute path of visible ASCII characters.
    #[error("path \"{0}\" must begin with / and have no spaces or special characters (use %20 and the like)")]
    Path(String),
    /// Not visible ASCII.
    #[error("\"{0}\" is no host name")]
    Host(String),
    /// No token, or one that the check sets itself.
    #[error("header \"{0}\" cannot be set (host has a setting of its own, a check has no body)")]
    HeaderName(String),
    /// A control character.
    #[error("value of header \"{0}\" has control characters")]
    HeaderValue(String),
    /// No status could ever be right, or it is none.
    #[error("expected statuses must be one or more numbers from 200 to 599")]
    Status,
    /// The pattern.
    #[error("\"{pattern}\" is no regular expression: {reason}")]
    Pattern {
        /// As given.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Over [`MAX_BODY_LIMIT`].
    #[error("max_body is over {MAX_BODY_LIMIT} bytes")]
    MaxBody,
}

/// What all checkers of the same settings share.
#[derive(Debug)]
struct Plan {
    head_request: bool,
    /// Up to the Host header's value where it depends on the target, else all.
    request: String,
    host_missing: bool,
    /// What follows the Host header's value.
    rest: String,
    expect_status: Arc<[u16]>,
    expect_body: Option<(Regex, Arc<str>)>,
    max_body: usize,
}

/// A connection between two checks.
#[derive(Debug)]
struct Kept {
    stream: TcpStream,
    target: SocketAddr,
    /// Checks it has served.
    uses: u32,
}

/// Sends a request and compares the answer.
///
/// It keeps one connection, to the target checked last, and uses it again unless the server closed it, but for
/// [`FRESH_EVERY`] checks at most. When a kept connection turns out to be dead, the check is made once more on a new
/// one before it counts, within the same time-out.
#[derive(Debug)]
pub struct HttpChecker {
    plan: Arc<Plan>,
    fresh_every: u32,
    kept: Mutex<Option<Kept>>,
}

impl HttpChecker {
    /// A checker for `settings`.
    ///
    /// # Errors
    /// When they make no request, or one that no answer can satisfy.
    pub fn new(settings: &HttpCheck) -> Result<Self, ProbeError> {
        Ok(Self {
            plan: Arc::new(Plan::new(settings)?),
            fresh_every: FRESH_EVERY,
            kept: Mutex::new(None),
        })
    }

    /// Uses a connection for `checks` checks at most; 0 and 1: for one.
    #[must_use]
    pub fn with_fresh_every(self, checks: u32) -> Self {
        Self {
            fresh_every: checks,
            ..self
        }
    }

    /// A checker with the same settings and a connection of its own, for another target.
    pub fn sibling(&self) -> Self {
        Self {
            plan: Arc::clone(&self.plan),
            fresh_every: self.fresh_every,
            kept: Mutex::new(None),
        }
    }

    /// The kept connection, if it leads to `target`, may be used again, and looks alive.
    fn take_kept(&self, target: SocketAddr) -> Option<Kept> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let quiet = kept
            .stream
            .try_read(&mut [0])
            .is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        (quiet && kept.target == target && kept.uses < self.fresh_every).then_some(kept)
    }

    /// Sends the request on `connection` and judges the answer; keeps the connection if it can be used again.
    async fn exchange(&self, budget: &Budget, mut connection: Kept) -> Result<(), CheckError> {
        let target = budget.target;
        let request = self.plan.request(target);
        budget
            .spend(Stage::Request, connection.stream.write_all(request.as_bytes()))
            .await?;
        let mut reader = ResponseReader::new(self.plan.head_request, self.plan.max_body);
        let mut piece = Vec::with_capacity(READ_SIZE);
        let reusable = loop {
            let stage = match (reader.in_body(), reader.begun()) {
                (true, _) => Stage::Body,
                (false, true) => Stage::Head,
                (false, false) => Stage::Request,
            };
            piece.clear();
            let read = budget
                .spend(stage, connection.stream.read_buf(&mut piece))
                .await?;
            if read == 0 && !reader.end() {
                return Err(CheckError::Closed { target, stage });
            }
            reader
                .feed(&piece)
                .map_err(|Malformed(reason)| CheckError::NotHttp { target, reason })?;
            if let Some(reusable) = reader.done() {
                break reusable;
            }
        };
        if reusable {
            connection.uses += 1;
            *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        }
        self.plan.judge(&reader)
    }
}

impl Checker for HttpChecker {
    async fn check(&self, target: SocketAddr, timeout: Duration) -> Result<Latency, CheckError> {
        let budget = Budget::start(target, timeout);
        if let Some(kept) = self.take_kept(target) {
            match self.exchange(&budget, kept).await {
                Err(error) if gone_stale(&error) => {}
                result => return result.map(|()| Latency(budget.started.elapsed())),
            }
        }
        let stream = budget.connect().await?;
        self.exchange(
            &budget,
            Kept {
                stream,
                target,
                uses: 0,
            },
        )
        .await?;
        Ok(Latency(budget.started.elapsed()))
    }
}

/// Whether a failure on a kept connection may only mean that the server had given it up. It may do so at any time,
/// also by 408 (RFC 9110 section 15.5.9).
fn gone_stale(error: &CheckError) -> bool {
    match error {
        CheckError::Reset { .. } | CheckError::Closed { .. } | CheckError::Connection { .. } => true,
        CheckError::Status { status, .. } => *status == 408,
        CheckError::Refused(_)
        | CheckError::TimedOut { .. }
        | CheckError::Unreachable { .. }
        | CheckError::NotHttp { .. }
        | CheckError::Body { .. }
        | CheckError::Local { .. } => false,
    }
}

impl Plan {
    fn new(settings: &HttpCheck) -> Result<Self, ProbeError> {
        let HttpCheck {
            method,
            path,
            host,
            headers,
            expect_status,
            expect_body,
            max_body,
        } = settings;
        if !is_token(method) || method == "CONNECT" {
            return Err(ProbeError::Method(method.clone()));
        }
        if !path.starts_with('/') || !is_visible(path) {
            return Err(ProbeError::Path(path.clone()));
        }
        if let Some(host) = host.as_ref().filter(|host| !is_visible(host)) {
            return Err(ProbeError::Host(host.clone()));
        }
        if expect_status.is_empty() || !expect_status.iter().all(|status| (200..=599).contains(status)) {
            return Err(ProbeError::Status);
        }
        if *max_body > MAX_BODY_LIMIT {
            return Err(ProbeError::MaxBody);
        }
        let expect_body = match expect_body {
            Some(pattern) => Some((compile(pattern)?, pattern.as_str().into())),
            None => None,
        };
        Ok(Self {
            head_request: method == "HEAD",
            request: format!(
                "{method} {path} HTTP/1.1\r\nHost: {}",
                host.as_deref().unwrap_or_default()
            ),
            host_missing: host.is_none(),
            rest: rest_of_request(method, headers)?,
            expect_status: BTreeSet::from_iter(expect_status).into_iter().copied().collect(),
            expect_body,
            max_body: *max_body,
        })
    }

    fn request(&self, target: SocketAddr) -> String {
        let mut request = String::with_capacity(self.request.len() + 64 + self.rest.len());
        request.push_str(&self.request);
        if self.host_missing {
            // Writing to a string does not fail.
            let _ = match target {
                SocketAddr::V4(v4) if v4.port() == 80 => write!(request, "{}", v4.ip()),
                SocketAddr::V6(v6) if v6.port() == 80 => write!(request, "[{}]", v6.ip()),
                // Not the whole address: a scope means nothing to the server.
                SocketAddr::V6(v6) => write!(request, "[{}]:{}", v6.ip(), v6.port()),
                SocketAddr::V4(v4) => write!(request, "{v4}"),
            };
        }
        request.push_str(&self.rest);
        request
    }

    fn judge(&self, answer: &ResponseReader) -> Result<(), CheckError> {
        let status = answer.status();
        if !self.expect_status.contains(&status) {
            return Err(CheckError::Status {
                status,
                expected: Arc::clone(&self.expect_status),
            });
        }
        match &self.expect_body {
            Some((regex, pattern)) if !regex.is_match(answer.body()) => Err(CheckError::Body {
                pattern: Arc::clone(pattern),
                examined: answer.body().len(),
            }),
            Some(_) | None => Ok(()),
        }
    }
}

fn rest_of_request(method: &str, headers: &[(String, String)]) -> Result<String, ProbeError> {
    let mut rest = "\r\n".to_owned();
    for (name, value) in headers {
        let ours = ["host", "content-length", "transfer-encoding"];
        if !is_token(name) || ours.iter().any(|ours| name.eq_ignore_ascii_case(ours)) {
            return Err(ProbeError::HeaderName(name.clone()));
        }
        if value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
            return Err(ProbeError::HeaderValue(name.clone()));
        }
        rest.push_str(&format!("{name}: {value}\r\n"));
    }
    if !headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("user-agent"))
    {
        rest.push_str(concat!(
            "User-Agent: lb-health/",
            env!("CARGO_PKG_VERSION"),
            "\r\n"
        ));
    }
    // Servers ask for the length of the body that these methods usually have (RFC 9110 section 8.6).
    if matches!(method, "POST" | "PUT" | "PATCH") {
        rest.push_str("Content-Length: 0\r\n");
    }
    rest.push_str("\r\n");
    Ok(rest)
}

fn compile(pattern: &str) -> Result<Regex, ProbeError> {
    Regex::new(pattern).map_err(|error| ProbeError::Pattern {
        pattern: pattern.to_owned(),
        reason: error.to_string(),
    })
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

//! Checks that a gRPC server reports SERVING.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Version,
    header::{CONTENT_TYPE, TE, USER_AGENT},
    uri::{Authority, PathAndQuery, Scheme},
};

use super::{
    connect::Budget,
    grpc_message::{self, MAX_SERVICE},
    http2::{self, Answer, Http2Client, Wanted},
    problem::ProbeError,
    request, tls,
};
use crate::{
    error::{CheckError, GrpcProblem, Latency},
    number,
    probe::{checker::Checker, route::Route},
    settings::GrpcCheck,
    status::Certificate,
};

/// The call (gRPC health checking protocol).
const METHOD: &str = "/grpc.health.v1.Health/Check";
/// Content type of requests and answers; answers may add a suffix or parameters.
const TYPE: &str = "application/grpc";
/// Bytes of an answer that are read at most; a good one has 7.
const MAX_ANSWER: usize = 1024;
/// Characters of a server's own words that are shown.
const MAX_MESSAGE: usize = 200;

/// Data that checkers of the same settings share.
#[derive(Debug)]
struct Plan {
    request: Request<()>,
    message: Bytes,
    service: Arc<str>,
    host: Option<Authority>,
    scheme: Scheme,
    path: PathAndQuery,
}

/// Calls `grpc.health.v1.Health/Check`; only `SERVING` is success.
///
/// It keeps one connection, to the target checked last, as [`HttpChecker`](super::HttpChecker) does.
#[derive(Debug)]
pub struct GrpcChecker {
    plan: Arc<Plan>,
    client: Http2Client,
}

impl GrpcChecker {
    /// A checker for `settings`.
    ///
    /// # Errors
    /// When they make no call.
    pub fn new(settings: &GrpcCheck) -> Result<Self, ProbeError> {
        if let Some(problem) = problems(settings).into_iter().next() {
            return Err(problem);
        }
        let GrpcCheck {
            service,
            host,
            keep_alive,
            tls,
        } = settings;
        let mut request = Request::new(());
        *request.version_mut() = Version::HTTP_2;
        *request.method_mut() = Method::POST;
        let fields = request.headers_mut();
        fields.insert(CONTENT_TYPE, HeaderValue::from_static(TYPE));
        // Announces that we read trailers; many servers refuse requests without this.
        fields.insert(TE, HeaderValue::from_static("trailers"));
        fields.insert(USER_AGENT, HeaderValue::from_static(request::USER_AGENT));
        let plan = Plan {
            request,
            message: grpc_message::request(service),
            service: service.as_str().into(),
            host: host.as_deref().map(http2::authority).transpose()?,
            scheme: http2::scheme(tls.is_some()),
            path: PathAndQuery::from_static(METHOD),
        };
        Ok(Self {
            plan: Arc::new(plan),
            client: Http2Client::new(tls.as_ref(), host.as_deref(), *keep_alive)?,
        })
    }

    /// Uses a connection for `checks` checks at most; 0 and 1: for one.
    #[must_use]
    pub fn with_fresh_every(mut self, checks: u32) -> Self {
        self.client.keeper.fresh_every = checks;
        self
    }

    /// Begins a new connection beside every n-th check over a kept one; 0 and 1: beside each.
    #[must_use]
    pub fn with_knock_every(mut self, checks: u32) -> Self {
        self.client.keeper.knock_every = checks;
        self
    }

    /// Whether the server answers on one connection at a time only, so that checks close theirs.
    pub fn serves_one(&self) -> bool {
        self.client.keeper.serves_one()
    }

    /// Connects by `route`.
    #[must_use]
    pub fn with_route(mut self, route: Route) -> Self {
        self.client.dialer.route = route;
        self
    }

    /// The certificate that was seen last, if any was.
    pub fn certificate(&self) -> Option<Certificate> {
        self.client.dialer.certificate()
    }

    /// A checker with the same settings and a connection of its own, for another target.
    pub fn sibling(&self) -> Self {
        Self {
            plan: Arc::clone(&self.plan),
            client: self.client.sibling(),
        }
    }
}

impl Checker for GrpcChecker {
    async fn check(&self, target: SocketAddr, timeout: Duration) -> Result<Latency, CheckError> {
        let mut budget = Budget::start(target, timeout);
        let plan = &self.plan;
        let mut request = plan.request.clone();
        *request.uri_mut() = http2::uri(&plan.scheme, plan.host.as_ref(), &plan.path, target)?;
        let message = Some(&plan.message);
        let judge = |answer: &Answer| {
            if answer.status != 200 {
                return Err(CheckError::Status {
                    url: request::url(plan.scheme.as_str(), target, METHOD),
                    status: answer.status,
                    expected: [200].into(),
                });
            }
            let result = judge(&answer.headers, &answer.body, answer.trailers.as_ref());
            result.map_err(|problem| CheckError::Grpc {
                target,
                service: Arc::clone(&plan.service),
                problem,
            })
        };
        let wanted = Wanted::Body(MAX_ANSWER);
        let asked = self.client.ask(&mut budget, &request, message, wanted, &judge);
        asked.await?;
        Ok(Latency(budget.started.elapsed()))
    }

    fn renew(&self) {
        self.client.keeper.renew();
    }
}

/// Everything that makes `settings` no call.
pub(super) fn problems(settings: &GrpcCheck) -> Vec<ProbeError> {
    let GrpcCheck {
        service,
        host,
        keep_alive: _,
        tls,
    } = settings;
    let mut problems = Vec::new();
    if service.len() > MAX_SERVICE {
        problems.push(ProbeError::Service(MAX_SERVICE));
    }
    problems.extend(host.as_deref().and_then(|host| http2::authority(host).err()));
    problems.extend(tls.iter().flat_map(|tls| tls::problems(tls, host.as_deref())));
    problems
}

/// The result of an answer with the status 200. A failing one may have its gRPC status in the headers.
fn judge(headers: &HeaderMap, body: &[u8], trailers: Option<&HeaderMap>) -> Result<(), GrpcProblem> {
    let text = |fields: &HeaderMap, name| {
        let value = fields.get(name)?.as_bytes();
        Some(String::from_utf8_lossy(value).into_owned())
    };
    let kind = text(headers, "content-type").unwrap_or_default();
    if !kind.starts_with(TYPE) {
        return Err(GrpcProblem::ContentType(shown(&kind)));
    }
    let fields = trailers.unwrap_or(headers);
    let code = text(fields, "grpc-status").ok_or(GrpcProblem::NoStatus)?;
    let message = || shown(&unescape(&text(fields, "grpc-message").unwrap_or_default()));
    match code.as_str() {
        "0" => grpc_message::verdict(body),
        // So the protocol has it for a service that the server does not know.
        "5" => Err(GrpcProblem::ServiceUnknown),
        "12" => Err(GrpcProblem::Unimplemented),
        code => Err(GrpcProblem::Call {
            name: name_of(code),
            message: message(),
        }),
    }
}

/// The name of a call's status (gRPC status codes).
fn name_of(code: &str) -> String {
    let name = match code {
        "1" => "CANCELLED",
        "2" => "UNKNOWN",
        "3" => "INVALID_ARGUMENT",
        "4" => "DEADLINE_EXCEEDED",
        "6" => "ALREADY_EXISTS",
        "7" => "PERMISSION_DENIED",
        "8" => "RESOURCE_EXHAUSTED",
        "9" => "FAILED_PRECONDITION",
        "10" => "ABORTED",
        "11" => "OUT_OF_RANGE",
        "13" => "INTERNAL",
        "14" => "UNAVAILABLE",
        "15" => "DATA_LOSS",
        "16" => "UNAUTHENTICATED",
        other => return format!("grpc-status {}", shown(other)),
    };
    name.to_owned()
}

/// Undoes percent-encoding; invalid sequences stay.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after
            .get(..2)
            .filter(|_| byte == b'%')
            .and_then(number::hexadecimal_byte);
        bytes.push(digits.unwrap_or(byte));
        rest = match digits {
            Some(_) => after.get(2..).unwrap_or_default(),
            None => after,
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A server's words as they may stand in a log: short, on one line.
fn shown(text: &str) -> String {
    let safe = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    safe.take(MAX_MESSAGE).collect()
}

#[cfg(test)]
mod tests;

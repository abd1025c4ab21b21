//! Is an HTTP/2 request answered as expected?

mod client;
mod frames;
mod session;
mod wire;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{
    HeaderName, HeaderValue, Method, Request, Uri, Version,
    header::{CONTENT_LENGTH, USER_AGENT},
    uri::{Authority, PathAndQuery, Scheme},
};

pub(super) use self::{
    client::Http2Client,
    session::{Answer, Wanted},
};
use super::{
    connect::Budget,
    problem::ProbeError,
    request::{self, Expectation},
};
use crate::{
    error::{CheckError, Latency, LocalError},
    probe::{checker::Checker, route::Route},
    settings::HttpCheck,
    status::Certificate,
};

/// Headers that HTTP/2 does without (RFC 9113 section 8.2.2); the other ones of its list are the check's in any version.
const FORBIDDEN: [&str; 4] = ["keep-alive", "proxy-connection", "te", "upgrade"];

/// Data that checkers of the same settings share.
#[derive(Debug)]
struct Plan {
    /// Without an authority where that depends on the target.
    request: Request<()>,
    host: Option<Authority>,
    scheme: Scheme,
    path: PathAndQuery,
    expect: Expectation,
}

/// Sends a request over HTTP/2 and compares the answer: over TLS where the settings have it (chosen by ALPN), else by
/// prior knowledge.
///
/// It keeps one connection, to the target checked last, as [`HttpChecker`](super::HttpChecker) does.
#[derive(Debug)]
pub struct Http2Checker {
    plan: Arc<Plan>,
    client: Http2Client,
}

impl Http2Checker {
    /// A checker for `settings`.
    ///
    /// # Errors
    /// When they make no valid request, or one that no answer can satisfy.
    pub fn new(settings: &HttpCheck) -> Result<Self, ProbeError> {
        if let Some(problem) = problems(settings).into_iter().next() {
            return Err(problem);
        }
        Ok(Self {
            plan: Arc::new(Plan::new(settings)?),
            client: Http2Client::new(
                settings.tls.as_ref(),
                settings.host.as_deref(),
                settings.keep_alive,
            )?,
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

impl Checker for Http2Checker {
    async fn check(&self, target: SocketAddr, timeout: Duration) -> Result<Latency, CheckError> {
        let mut budget = Budget::start(target, timeout);
        let plan = &self.plan;
        let mut request = plan.request.clone();
        *request.uri_mut() = uri(&plan.scheme, plan.host.as_ref(), &plan.path, target)?;
        let wanted = if plan.expect.wants_head_only() {
            Wanted::Head
        } else {
            Wanted::Body(plan.expect.max_body)
        };
        let judge = |answer: &Answer| plan.expect.judge(target, answer.status, &answer.body);
        let asked = self.client.ask(&mut budget, &request, None, wanted, &judge);
        asked.await?;
        Ok(Latency(budget.started.elapsed()))
    }

    fn renew(&self) {
        self.client.keeper.renew();
    }
}

impl Plan {
    fn new(settings: &HttpCheck) -> Result<Self, ProbeError> {
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
        let mut request = Request::new(());
        *request.version_mut() = Version::HTTP_2;
        *request.method_mut() =
            Method::from_bytes(method.as_bytes()).map_err(|_| ProbeError::Method(method.clone()))?;
        let fields = request.headers_mut();
        for (name, value) in headers {
            let key = HeaderName::from_bytes(name.as_bytes());
            let value = HeaderValue::from_bytes(value.as_bytes());
            fields.append(
                key.map_err(|_| ProbeError::HeaderName(name.clone()))?,
                value.map_err(|_| ProbeError::HeaderValue(name.clone()))?,
            );
        }
        if !fields.contains_key(USER_AGENT) {
            fields.insert(USER_AGENT, HeaderValue::from_static(request::USER_AGENT));
        }
        if request::has_body(method) {
            fields.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        Ok(Self {
            request,
            host: host.as_deref().map(authority).transpose()?,
            scheme: scheme(tls.is_some()),
            path: path_of(path)?,
            expect: Expectation::new(settings)?,
        })
    }
}

/// All errors in `settings` for a request over HTTP/2, including answers that cannot exist.
pub(super) fn problems(settings: &HttpCheck) -> Vec<ProbeError> {
    let mut problems = request::problems(settings);
    let forbidden = settings.headers.iter().filter(|(name, _)| {
        FORBIDDEN
            .iter()
            .any(|forbidden| name.eq_ignore_ascii_case(forbidden))
    });
    problems.extend(forbidden.map(|(name, _)| ProbeError::HeaderName(name.clone())));
    if problems.is_empty() {
        problems.extend(Plan::new(settings).err());
    }
    problems
}

/// The authority that a host setting makes.
pub(super) fn authority(host: &str) -> Result<Authority, ProbeError> {
    Authority::try_from(host).map_err(|_| ProbeError::Host(host.to_owned()))
}

pub(super) fn scheme(tls: bool) -> Scheme {
    if tls { Scheme::HTTPS } else { Scheme::HTTP }
}

fn path_of(path: &str) -> Result<PathAndQuery, ProbeError> {
    let parsed = PathAndQuery::try_from(path).map_err(|_| ProbeError::Path(path.to_owned()))?;
    // It drops a fragment without a word.
    if parsed.as_str() == path {
        Ok(parsed)
    } else {
        Err(ProbeError::Path(path.to_owned()))
    }
}

/// The URI of the request to `target`.
pub(super) fn uri(
    scheme: &Scheme,
    host: Option<&Authority>,
    path: &PathAndQuery,
    target: SocketAddr,
) -> Result<Uri, CheckError> {
    let default_port = if *scheme == Scheme::HTTPS { 443 } else { 80 };
    let builder = Uri::builder().scheme(scheme.clone()).path_and_query(path.clone());
    let built = match host {
        Some(host) => builder.authority(host.clone()).build(),
        None => builder.authority(request::host_of(target, default_port)).build(),
    };
    built.map_err(|error| CheckError::Local {
        target,
        error: LocalError::Settings(error.to_string().into()),
    })
}

//! Is a datagram answered, or at least not refused?

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use regex::bytes::Regex;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use super::{
    connect::Budget,
    problem::{ProbeError, compile},
    through,
};
use crate::{
    error::{CheckError, Latency, Stage},
    probe::{checker::Checker, route::Route},
    settings::UdpCheck,
    source_ports,
};

/// Longest datagram that is looked at.
pub(super) const MAX_DATAGRAM: usize = 65_535;
/// Longest payload of one datagram over IPv4.
const MAX_PAYLOAD: usize = 65_507;

/// Everything that makes `settings` no check.
pub(super) fn problems(settings: &UdpCheck) -> Vec<ProbeError> {
    let UdpCheck {
        payload,
        expect_reply,
    } = settings;
    let mut problems = Vec::new();
    if payload.len() > MAX_PAYLOAD {
        problems.push(ProbeError::Payload(MAX_PAYLOAD));
    }
    if let Some(Err(problem)) = expect_reply
        .as_deref()
        .map(|reply| compile("expect_reply", reply))
    {
        problems.push(problem);
    }
    problems
}

/// Sends a datagram and waits for the answer.
///
/// With an expected reply, the first answer must match it. Without, any answer is good, and so is silence until the
/// time-out: only an ICMP error is a failure then.
#[derive(Clone, Debug)]
pub struct UdpChecker {
    payload: Arc<[u8]>,
    expect: Option<(Regex, Arc<str>)>,
    route: Route,
}

impl UdpChecker {
    /// A checker for `settings`.
    ///
    /// # Errors
    /// When they make no datagram or no expectation.
    pub fn new(settings: &UdpCheck) -> Result<Self, ProbeError> {
        if let Some(problem) = problems(settings).into_iter().next() {
            return Err(problem);
        }
        let expect = match &settings.expect_reply {
            Some(pattern) => Some((compile("expect_reply", pattern)?, pattern.as_str().into())),
            None => None,
        };
        Ok(Self {
            payload: settings.payload.as_bytes().into(),
            expect,
            route: Route::default(),
        })
    }

    /// Sends by `route`.
    #[must_use]
    pub fn with_route(self, route: Route) -> Self {
        Self { route, ..self }
    }
}

impl Checker for UdpChecker {
    async fn check(&self, target: SocketAddr, timeout: Duration) -> Result<Latency, CheckError> {
        let mut budget = Budget::start(target, timeout);
        let socket = budget.spend(Stage::Connect, connect(target, self.route)).await?;
        let mut reply = Vec::with_capacity(MAX_DATAGRAM);
        let answer = budget.spend(Stage::Request, async {
            socket.send(&self.payload).await?;
            socket.recv_buf(&mut reply).await
        });
        match (answer.await, &self.expect) {
            (Err(CheckError::TimedOut { .. }), None) | (Ok(_), None) => Ok(Latency(budget.started.elapsed())),
            (Err(error), _) => Err(error),
            (Ok(_), Some((regex, _))) if regex.is_match(&reply) => Ok(Latency(budget.started.elapsed())),
            (Ok(size), Some((_, pattern))) => Err(CheckError::Answer {
                target,
                reason: format!("its {size} bytes do not match \"{pattern}\"").into(),
            }),
        }
    }
}

/// A socket connected to `target`, so that ICMP errors reach it.
pub(super) async fn connect(target: SocketAddr, route: Route) -> io::Result<UdpSocket> {
    let any = match target {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let source = route.source_for(target)?.unwrap_or(any);
    let socket = Socket::new(
        Domain::for_address(target),
        Type::DGRAM.nonblocking(),
        Some(Protocol::UDP),
    )?;
    // The port is chosen now.
    source_ports::apply(&socket)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    let socket = UdpSocket::from_std(socket.into())?;
    route.mark(&socket)?;
    socket.connect(through::enter(&socket, target)?).await?;
    Ok(socket)
}

//! The checker of each kind of check.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::{
    checker::Checker,
    dialogue::{self, DialogueChecker},
    dns::{self, DnsChecker},
    exec::{self, ExecChecker},
    grpc::{self, GrpcChecker},
    http::HttpChecker,
    http2::{self, Http2Checker},
    icmp::IcmpChecker,
    problem::ProbeError,
    push::{self, PushChecker},
    request,
    route::Route,
    tcp::TcpProbe,
    tls::{self, TlsChecker},
    udp::{self, UdpChecker},
};
use crate::{
    error::{CheckError, Latency, LocalError},
    machine::knock_every,
    settings::{CheckKind, CheckSettings, GrpcCheck, HttpCheck, Through},
    status::Certificate,
};

/// The checker for settings.
#[derive(Debug)]
pub(crate) enum Probe {
    Tcp(TcpProbe),
    Dialogue(DialogueChecker),
    Tls(TlsChecker),
    Http(HttpChecker),
    Http2(Http2Checker),
    Grpc(GrpcChecker),
    Dns(DnsChecker),
    Udp(UdpChecker),
    Icmp(IcmpChecker),
    Exec(ExecChecker),
    Push(PushChecker),
    /// Settings that make no check: shown as the result of each check, which never counts.
    Impossible(Arc<str>),
}

impl Probe {
    /// Whether the target answers on one connection at a time only, so that checks close theirs.
    pub(super) fn serves_one(&self) -> bool {
        match self {
            Self::Http(checker) => checker.serves_one(),
            Self::Http2(checker) => checker.serves_one(),
            Self::Grpc(checker) => checker.serves_one(),
            Self::Tcp(_)
            | Self::Dialogue(_)
            | Self::Tls(_)
            | Self::Dns(_)
            | Self::Udp(_)
            | Self::Icmp(_)
            | Self::Exec(_)
            | Self::Push(_)
            | Self::Impossible(_) => false,
        }
    }

    /// The certificate that was seen last.
    pub(super) fn certificate(&self) -> Option<Certificate> {
        match self {
            Self::Tls(checker) => checker.certificate(),
            Self::Http(checker) => checker.certificate(),
            Self::Http2(checker) => checker.certificate(),
            Self::Grpc(checker) => checker.certificate(),
            Self::Tcp(_)
            | Self::Dialogue(_)
            | Self::Dns(_)
            | Self::Udp(_)
            | Self::Icmp(_)
            | Self::Exec(_)
            | Self::Push(_)
            | Self::Impossible(_) => None,
        }
    }
}

impl Checker for Probe {
    async fn check(&self, target: SocketAddr, timeout: Duration) -> Result<Latency, CheckError> {
        // Boxed one by one, so that a check in flight takes the memory of its own kind, not of the largest.
        match self {
            Self::Tcp(checker) => checker.check(target, timeout).await,
            Self::Dialogue(checker) => Box::pin(checker.check(target, timeout)).await,
            Self::Tls(checker) => Box::pin(checker.check(target, timeout)).await,
            Self::Http(checker) => Box::pin(checker.check(target, timeout)).await,
            Self::Http2(checker) => Box::pin(checker.check(target, timeout)).await,
            Self::Grpc(checker) => Box::pin(checker.check(target, timeout)).await,
            Self::Dns(checker) => Box::pin(checker.check(target, timeout)).await,
            Self::Udp(checker) => Box::pin(checker.check(target, timeout)).await,
            Self::Icmp(checker) => Box::pin(checker.check(target, timeout)).await,
            Self::Push(checker) => Box::pin(checker.check(target, timeout)).await,
            Self::Exec(checker) => Box::pin(checker.check(target, timeout)).await,
            Self::Impossible(why) => Err(CheckError::Local {
                target,
                error: LocalError::Settings(Arc::clone(why)),
            }),
        }
    }

    fn renew(&self) {
        match self {
            Self::Http(checker) => checker.renew(),
            Self::Http2(checker) => checker.renew(),
            Self::Grpc(checker) => checker.renew(),
            Self::Tcp(_)
            | Self::Dialogue(_)
            | Self::Tls(_)
            | Self::Dns(_)
            | Self::Udp(_)
            | Self::Icmp(_)
            | Self::Exec(_)
            | Self::Push(_)
            | Self::Impossible(_) => {}
        }
    }
}

/// Makes probes; those of equal settings share prepared parts, such as compiled expressions.
#[derive(Debug, Default)]
pub(crate) struct ProbeCache {
    http: Vec<(HttpCheck, HttpChecker)>,
    http2: Vec<(HttpCheck, Http2Checker)>,
    grpc: Vec<(GrpcCheck, GrpcChecker)>,
}

impl ProbeCache {
    pub(crate) fn probe(&mut self, settings: &CheckSettings) -> Probe {
        match settings.through {
            Through::Backend => {}
            Through::Vip => return Probe::Impossible("only the balancer checks through the VIP".into()),
        }
        let every = knock_every(settings);
        let route = Route {
            source: settings.source,
            mark: settings.mark,
            proxy: settings.send_proxy,
        };
        match &settings.kind {
            CheckKind::None => Probe::Impossible("no check is configured".into()),
            CheckKind::Tcp => Probe::Tcp(TcpProbe {
                route,
                half_open: false,
            }),
            CheckKind::TcpHalfOpen => Probe::Tcp(TcpProbe {
                route,
                half_open: true,
            }),
            CheckKind::Dialogue(dialogue) => match DialogueChecker::new(dialogue) {
                Ok(checker) => Probe::Dialogue(checker.with_route(route)),
                Err(error) => Probe::Impossible(error.to_string().into()),
            },
            CheckKind::Tls(tls) => match TlsChecker::new(tls) {
                Ok(checker) => Probe::Tls(checker.with_route(route)),
                Err(error) => Probe::Impossible(error.to_string().into()),
            },
            CheckKind::Dns(dns) => match DnsChecker::new(dns) {
                Ok(checker) => Probe::Dns(checker.with_route(route)),
                Err(error) => Probe::Impossible(error.to_string().into()),
            },
            CheckKind::Udp(udp) => match UdpChecker::new(udp) {
                Ok(checker) => Probe::Udp(checker.with_route(route)),
                Err(error) => Probe::Impossible(error.to_string().into()),
            },
            CheckKind::Icmp => Probe::Icmp(IcmpChecker::default().with_route(route)),
            CheckKind::Push(_) => Probe::Impossible("only the balancer takes reports".into()),
            CheckKind::Exec(exec) => match ExecChecker::new(exec) {
                Ok(checker) => Probe::Exec(checker),
                Err(error) => Probe::Impossible(error.to_string().into()),
            },
            CheckKind::Http(http) => {
                match shared(&mut self.http, http, HttpChecker::new, HttpChecker::sibling) {
                    Ok(checker) => Probe::Http(checker.with_route(route).with_knock_every(every)),
                    Err(error) => Probe::Impossible(error.to_string().into()),
                }
            }
            CheckKind::Http2(http) => {
                match shared(&mut self.http2, http, Http2Checker::new, Http2Checker::sibling) {
                    Ok(checker) => Probe::Http2(checker.with_route(route).with_knock_every(every)),
                    Err(error) => Probe::Impossible(error.to_string().into()),
                }
            }
            CheckKind::Grpc(grpc) => {
                match shared(&mut self.grpc, grpc, GrpcChecker::new, GrpcChecker::sibling) {
                    Ok(checker) => Probe::Grpc(checker.with_route(route).with_knock_every(every)),
                    Err(error) => Probe::Impossible(error.to_string().into()),
                }
            }
        }
    }
}

/// A checker of `settings`, sharing the parts prepared for equal settings.
fn shared<S: PartialEq + Clone, C>(
    known: &mut Vec<(S, C)>,
    settings: &S,
    new: impl FnOnce(&S) -> Result<C, ProbeError>,
    sibling: impl FnOnce(&C) -> C,
) -> Result<C, ProbeError> {
    if let Some((_, checker)) = known.iter().find(|(known, _)| known == settings) {
        return Ok(sibling(checker));
    }
    let checker = new(settings)?;
    known.push((settings.clone(), sibling(&checker)));
    Ok(checker)
}

/// Everything that makes a kind no check.
pub fn problems(kind: &CheckKind) -> Vec<ProbeError> {
    match kind {
        CheckKind::None | CheckKind::Tcp | CheckKind::TcpHalfOpen | CheckKind::Icmp => Vec::new(),
        CheckKind::Dialogue(dialogue) => dialogue::problems(dialogue),
        CheckKind::Tls(tls) => tls::problems(tls, None),
        CheckKind::Dns(dns) => dns::problems(dns),
        CheckKind::Udp(udp) => udp::problems(udp),
        CheckKind::Push(push) => push::problems(push),
        CheckKind::Exec(exec) => exec::problems(exec),
        CheckKind::Http(http) => request::problems(http),
        CheckKind::Http2(http) => http2::problems(http),
        CheckKind::Grpc(grpc) => grpc::problems(grpc),
    }
}

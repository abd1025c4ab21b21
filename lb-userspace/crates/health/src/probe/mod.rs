//! Checkers: each makes one kind of check over real sockets.

mod batch;
mod certificate;
mod checker;
mod composite;
mod configured;
pub(super) mod connect;
pub(super) mod connection;
mod dialogue;
mod dns;
mod dns_message;
mod exec;
mod grpc;
mod grpc_message;
mod http;
mod http2;
mod icmp;
mod identity;
mod keeping;
mod kind;
mod problem;
mod proxy;
mod push;
mod request;
mod response;
pub(super) mod route;
mod socket_pool;
mod stream;
mod tcp;
mod through;
mod tls;
mod udp;
pub(super) mod verifier;

pub use batch::check_all;
pub use certificate::{
    CertificateFacts, CertificateIdentity, facts as certificate_facts, identity as certificate_identity,
    names as certificate_names, next_update,
};
pub use checker::Checker;
pub(super) use composite::{Found, Probes};
pub use configured::{Checkers, ConfiguredChecker, NoCheck};
pub use dialogue::DialogueChecker;
pub use dns::DnsChecker;
pub use exec::ExecChecker;
pub use grpc::GrpcChecker;
pub use http::HttpChecker;
pub use http2::Http2Checker;
pub use icmp::IcmpChecker;
pub use keeping::FRESH_EVERY;
pub use kind::problems;
pub(super) use kind::{Probe, ProbeCache};
pub use problem::{MAX_BODY_LIMIT, ProbeError};
pub(super) use push::PushChecker;
pub use route::Route;
pub use tcp::{TcpChecker, TcpProbe};
pub use tls::{TlsChecker, has_system_cas};
pub use udp::UdpChecker;

#[cfg(test)]
mod tests;

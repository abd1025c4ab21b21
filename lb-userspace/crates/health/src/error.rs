//! Why a check failed, in words a person can act on.

use std::{
    borrow::Cow,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use super::{probe::connection::TooMuch, probe_route::CheckPath};

mod http2;
mod tls;

pub use http2::{GrpcProblem, Http2Problem};
pub use tls::CertificateProblem;
pub(super) use tls::{CERTIFICATE_WANTED, words};

/// Time from the start of a check to its success.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Latency(pub Duration);

/// How far a check had come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Establishing the connection.
    Connect,
    /// Establishing the TLS session.
    Handshake,
    /// Sending the request, or waiting for the first byte of the answer.
    Request,
    /// Within the status line and the headers.
    Head,
    /// Within the body.
    Body,
    /// Within a frame of HTTP/2.
    Frame,
    /// Within the line of an agent.
    Line,
}

/// Why a check failed. [`CheckError::is_local`] separates errors of this machine from failures of the target.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CheckError {
    /// The port is closed.
    #[error("connection refused by {0}")]
    Refused(SocketAddr),
    /// The time-out passed.
    #[error("{} within {after:?} from {target}", missing(*.stage))]
    TimedOut {
        /// The checked address.
        target: SocketAddr,
        /// The stage in which the check waited.
        stage: Stage,
        /// The time-out.
        after: Duration,
    },
    /// The connection was reset.
    #[error("{target} reset the connection {}", during(*.stage))]
    Reset {
        /// The checked address.
        target: SocketAddr,
        /// When.
        stage: Stage,
    },
    /// The connection was closed too early.
    #[error("{target} closed the connection {}", during(*.stage))]
    Closed {
        /// The checked address.
        target: SocketAddr,
        /// When.
        stage: Stage,
    },
    /// The network has no way to the target.
    #[error("{target} is unreachable: {reason}")]
    Unreachable {
        /// The checked address.
        target: SocketAddr,
        /// The kernel's words.
        reason: String,
    },
    /// Another failure of the connection.
    #[error("connection to {target} failed: {reason}")]
    Connection {
        /// The checked address.
        target: SocketAddr,
        /// The kernel's words.
        reason: String,
    },
    /// The status is not an expected one.
    #[error("status {status} from {url}, expected {}", list(.expected))]
    Status {
        /// The request's URL, with the checked address.
        url: Arc<str>,
        /// What came.
        status: u16,
        /// The expected ones, in order.
        expected: Arc<[u16]>,
    },
    /// The answer is no HTTP/1.x.
    #[error("answer of {target} is not HTTP: {reason}")]
    NotHttp {
        /// The checked address.
        target: SocketAddr,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The answer does not end.
    #[error("{target} sends without end: no complete answer in {limit} bytes")]
    Endless {
        /// The checked address.
        target: SocketAddr,
        /// Bytes that were read.
        limit: usize,
    },
    /// No answer over HTTP/2.
    #[error("{target} {problem}")]
    Http2 {
        /// The checked address.
        target: SocketAddr,
        /// The problem.
        problem: Http2Problem,
    },
    /// The health service does not report SERVING.
    #[error("{} {problem}", asked(.service, .target))]
    Grpc {
        /// The checked address.
        target: SocketAddr,
        /// The requested service; empty for the server as a whole.
        service: Arc<str>,
        /// The problem.
        problem: GrpcProblem,
    },
    /// The target speaks no TLS, or none that this check speaks too.
    #[error("no TLS session with {target}: {reason}")]
    Tls {
        /// The checked address.
        target: SocketAddr,
        /// The problem.
        reason: String,
    },
    /// The certificate is not good.
    #[error("certificate of {target} {problem}")]
    Certificate {
        /// The checked address.
        target: SocketAddr,
        /// What is wrong with it.
        problem: CertificateProblem,
    },
    /// The target took none of the protocols offered in the handshake (ALPN).
    #[error("{target} speaks none of the offered protocols: {offered}")]
    Protocol {
        /// The checked address.
        target: SocketAddr,
        /// The offered protocols.
        offered: Arc<str>,
    },
    /// The answer is understood, or not, and is not the expected one.
    #[error("wrong answer of {target}: {reason}")]
    Answer {
        /// The checked address.
        target: SocketAddr,
        /// What is wrong with it.
        reason: Arc<str>,
    },
    /// No reply to an echo request came in time.
    #[error("no echo reply within {after:?} from {target}")]
    NoEcho {
        /// The checked address.
        target: IpAddr,
        /// The time-out.
        after: Duration,
    },
    /// A router, or the target itself, reports by ICMP that echo requests do not arrive.
    #[error("{words}, reported by {from} on the path to {target}")]
    IcmpError {
        /// The checked address.
        target: IpAddr,
        /// The sender of the report; this machine itself if the next hop does not answer.
        from: IpAddr,
        /// Its meaning.
        words: Cow<'static, str>,
    },
    /// A report by itself, or by a script, says `down`.
    #[error("reported down: {reason}, by {target}")]
    Reported {
        /// The address it is about.
        target: SocketAddr,
        /// The reason in the report.
        reason: Arc<str>,
    },
    /// It has not reported for too long.
    #[error("no report within {ttl:?} by {target}")]
    Expired {
        /// The address it would be about.
        target: SocketAddr,
        /// How long the latest report held.
        ttl: Duration,
    },
    /// The program did not succeed.
    #[error("command failed for {target}: {reason}")]
    Command {
        /// The checked address.
        target: SocketAddr,
        /// Its exit status and output.
        reason: Arc<str>,
    },
    /// The body does not match the expected pattern.
    #[error("body of {url} does not match \"{pattern}\" in its first {examined} bytes")]
    Body {
        /// The request's URL, with the checked address.
        url: Arc<str>,
        /// The regular expression.
        pattern: Arc<str>,
        /// Bytes of body that were looked at.
        examined: usize,
    },
    /// A check through the forwarding path failed.
    #[error("{error}, through {path}")]
    Through {
        /// The path.
        path: CheckPath,
        /// The client's error.
        error: Box<Self>,
    },
    /// The check could not be made; does not count against the target.
    #[error("cannot check {target}: {error}")]
    Local {
        /// The address that was to be checked.
        target: SocketAddr,
        /// The error of this machine.
        error: LocalError,
    },
}

/// Why a check could not be made.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LocalError {
    /// `RLIMIT_NOFILE`, or the machine's limit.
    #[error("too many open files on this machine (raise LimitNOFILE)")]
    Descriptors,
    /// All source ports to this target are in use.
    #[error("no free local port or address on this machine")]
    Ports,
    /// Memory or socket buffers.
    #[error("not enough memory on this machine")]
    Memory,
    /// A local packet filter or security policy.
    #[error("this machine does not permit the connection (a local firewall?)")]
    NotPermitted,
    /// A check that waits for reports has had none.
    #[error("nothing has been reported yet")]
    NoReport,
    /// No `CAP_NET_RAW`, and the process's group may not ping.
    #[error("pings need CAP_NET_RAW, or the group of the process in net.ipv4.ping_group_range")]
    Ping,
    /// No `CAP_NET_ADMIN`.
    #[error("the mark of packets needs CAP_NET_ADMIN")]
    Mark,
    /// There is no way into the forwarding path.
    #[error("cannot enter the forwarding path: {0}")]
    Path(Arc<str>),
    /// The kernel does not speak the target's address family.
    #[error("this machine does not support the target's address family")]
    Family,
    /// The result came too late to count, because this machine was busy.
    #[error("this machine was too busy, the check ran {0:?} over its time-out")]
    Late(Duration),
    /// The settings make no check.
    #[error("{0}")]
    Settings(Arc<str>),
    /// A defect of the checker itself.
    #[error("the check ended abnormally")]
    Aborted,
}

impl CheckError {
    /// Whether it is an error of this machine, which must not count against the target.
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Local { .. })
    }

    /// The check error for an I/O error of a connection to `target`.
    pub(super) fn from_io(target: SocketAddr, stage: Stage, error: &io::Error) -> Self {
        let local = |error| Self::Local { target, error };
        if let Some(tls) = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            return Self::from_tls(target, tls);
        }
        if let Some(lacking) = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<LocalError>())
        {
            return local(lacking.clone());
        }
        if let Some(TooMuch(limit)) = error.get_ref().and_then(|inner| inner.downcast_ref::<TooMuch>()) {
            return Self::Endless {
                target,
                limit: *limit,
            };
        }
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Self::Closed { target, stage };
        }
        match error.raw_os_error() {
            Some(libc::ECONNREFUSED) => Self::Refused(target),
            Some(libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED) => Self::Reset { target, stage },
            Some(libc::EMFILE | libc::ENFILE) => local(LocalError::Descriptors),
            Some(libc::EADDRNOTAVAIL | libc::EADDRINUSE | libc::EAGAIN) => local(LocalError::Ports),
            Some(libc::ENOMEM | libc::ENOBUFS) => local(LocalError::Memory),
            Some(libc::EPERM | libc::EACCES) => local(LocalError::NotPermitted),
            Some(libc::EAFNOSUPPORT) => local(LocalError::Family),
            Some(libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EHOSTDOWN | libc::ENETDOWN) => {
                Self::Unreachable {
                    target,
                    reason: kernel_words(error),
                }
            }
            _ => Self::Connection {
                target,
                reason: kernel_words(error),
            },
        }
    }
}

impl CheckError {
    fn from_tls(target: SocketAddr, error: &rustls::Error) -> Self {
        if let rustls::Error::InvalidCertificate(problem) = error {
            return Self::Certificate {
                target,
                problem: CertificateProblem::new(problem),
            };
        }
        Self::Tls {
            target,
            reason: tls::reason(error),
        }
    }
}

/// The kernel's words in the style of our messages: without the code, in lower case.
fn kernel_words(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((message, _)) => message.to_lowercase(),
        None => text,
    }
}

fn missing(stage: Stage) -> &'static str {
    match stage {
        Stage::Connect => "no answer to the connection request",
        Stage::Handshake => "no complete TLS handshake",
        Stage::Request => "no answer",
        Stage::Head => "no complete header",
        Stage::Body => "no complete body",
        Stage::Frame => "no complete frame",
        Stage::Line => "no complete line",
    }
}

fn during(stage: Stage) -> &'static str {
    match stage {
        Stage::Connect => "while connecting",
        Stage::Handshake => "in the TLS handshake",
        Stage::Request => "before it answered",
        Stage::Head => "in the middle of the header",
        Stage::Body => "in the middle of the body",
        Stage::Frame => "in the middle of a frame",
        Stage::Line => "in the middle of the line",
    }
}

/// The subject of a request to a gRPC health service.
fn asked(service: &str, target: &SocketAddr) -> String {
    if service.is_empty() {
        format!("{target}")
    } else {
        format!("service {service} of {target}")
    }
}

/// Statuses in order, runs of more than two as ranges: `200 or 204 or 300-399`.
fn list(statuses: &[u16]) -> String {
    let runs = statuses.chunk_by(|one, next| one.checked_add(1) == Some(*next));
    let words = runs.flat_map(|run| match run {
        [first, _, .., last] => vec![format!("{first}-{last}")],
        few => few.iter().map(u16::to_string).collect(),
    });
    words.collect::<Vec<_>>().join(" or ")
}

#[cfg(test)]
mod tests;

//! How a backend is checked, as checked values.

use std::{net::IpAddr, time::Duration};

/// The kind of a check, with its settings.
#[derive(Clone, PartialEq, Debug)]
pub enum CheckKind {
    /// No check: the backend counts as unchecked and takes flows.
    None,
    /// A TCP connection is established.
    Tcp,
    /// A TCP connection is established, and the server answers as expected.
    Dialogue(TcpDialogue),
    /// A TCP connection is begun and reset before the server sees it.
    TcpHalfOpen,
    /// A TLS handshake succeeds.
    Tls(TlsCheck),
    /// An HTTP request is answered as expected.
    Http(HttpCheck),
    /// An HTTP request is answered as expected over HTTP/2: by TLS where that is set, else by prior knowledge (h2c).
    Http2(HttpCheck),
    /// A gRPC server reports SERVING.
    Grpc(GrpcCheck),
    /// A DNS question is answered as expected.
    Dns(DnsCheck),
    /// A datagram is answered, or at least not refused.
    Udp(UdpCheck),
    /// An echo request is answered.
    Icmp,
    /// A backend, or a script beside it, reports that it is well.
    Push(PushCheck),
    /// A program succeeds.
    Exec(ExecCheck),
}

impl CheckKind {
    /// Whether anything is done at all.
    pub fn is_check(&self) -> bool {
        !matches!(self, Self::None)
    }

    /// Whether results are verdicts of others, of which one is enough, and not samples.
    pub fn is_reported(&self) -> bool {
        matches!(self, Self::Push(_))
    }
}

/// A dialogue over a TCP connection: texts to send and to expect.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TcpDialogue {
    /// One after the other, on one connection.
    pub steps: Vec<DialogueStep>,
}

/// A step of a dialogue: first it sends, then it waits. One of the two may be absent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DialogueStep {
    /// Text to send.
    pub send: Option<Bytes>,
    /// Text that must arrive.
    pub expect: Option<Expected>,
}

/// Text that must arrive in an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Expected {
    /// These bytes, anywhere in it.
    Bytes(Bytes),
    /// A match of this regular expression.
    Regex(String),
}

/// Bytes, and how the configuration writes them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Bytes {
    /// As a text.
    Text(String),
    /// In hexadecimal.
    Hex(Vec<u8>),
}

impl Bytes {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Hex(bytes) => bytes,
        }
    }

    /// The key of the two for either way of writing.
    pub(super) const fn key(&self, text: &'static str, hex: &'static str) -> &'static str {
        match self {
            Self::Text(_) => text,
            Self::Hex(_) => hex,
        }
    }
}

/// Version of the PROXY protocol (HAProxy's `proxy-protocol.txt`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// An HTTP request and the answer it wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpCheck {
    /// Request method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Host header; the target's address where absent.
    pub host: Option<String>,
    /// Further headers, in order.
    pub headers: Vec<(String, String)>,
    /// Statuses that count as success, in ascending order.
    pub expect_status: Vec<u16>,
    /// Regular expression that the body must match, within its first `max_body` bytes.
    pub expect_body: Option<String>,
    /// Bytes of the body that are read at most.
    pub max_body: usize,
    /// Whether the connection is kept for the next checks, where the server serves others beside it.
    pub keep_alive: bool,
    /// TLS, for https and, where it is used, http2.
    pub tls: Option<TlsCheck>,
}

impl Default for HttpCheck {
    fn default() -> Self {
        Self {
            method: "GET".to_owned(),
            path: "/".to_owned(),
            host: None,
            headers: Vec::new(),
            expect_status: vec![200],
            expect_body: None,
            max_body: 64 * 1024,
            keep_alive: true,
            tls: None,
        }
    }
}

/// A call of `grpc.health.v1.Health/Check` (gRPC health checking protocol); only `SERVING` is success.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GrpcCheck {
    /// The service to ask about; empty for the server as a whole.
    pub service: String,
    /// Authority of the call; the target's address where absent.
    pub host: Option<String>,
    /// Whether the connection is kept for the next checks, where the server serves others beside it.
    pub keep_alive: bool,
    /// TLS; plain HTTP/2 by prior knowledge where absent.
    pub tls: Option<TlsCheck>,
}

impl Default for GrpcCheck {
    fn default() -> Self {
        Self {
            service: String::new(),
            host: None,
            keep_alive: true,
            tls: None,
        }
    }
}

/// TLS as a check's client speaks it: versions 1.2 and 1.3.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsCheck {
    /// Whether the certificate must be valid, for the right name, and signed by a trusted CA.
    pub verify: bool,
    /// Name that the certificate must have, sent as SNI. Where absent, the host of an HTTP check, else the target's
    /// address, which needs a certificate for that address.
    pub server_name: Option<String>,
    /// PEM file of the only CAs to trust; the machine's CAs if absent.
    pub ca_file: Option<String>,
    /// PEM file of the client's certificate chain.
    pub cert_file: Option<String>,
    /// PEM file of the client's key.
    pub key_file: Option<String>,
    /// Protocols offered (RFC 7301); where there are any, the server must take one.
    pub alpn: Vec<String>,
    /// The balancer warns when the certificate is valid for less than this.
    pub warn_before: Duration,
}

impl Default for TlsCheck {
    fn default() -> Self {
        Self {
            verify: true,
            server_name: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            alpn: Vec::new(),
            warn_before: Duration::from_secs(14 * 24 * 60 * 60),
        }
    }
}

/// Types of DNS records to look up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the registry of DNS parameters says what each is")]
pub enum RecordType {
    A,
    Aaaa,
    Cname,
    Mx,
    Ns,
    Ptr,
    Soa,
    Srv,
    Txt,
}

impl RecordType {
    /// The number on the wire (RFC 1035 section 3.2.2, RFC 3596, RFC 2782).
    pub fn number(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Ns => 2,
            Self::Cname => 5,
            Self::Soa => 6,
            Self::Ptr => 12,
            Self::Mx => 15,
            Self::Txt => 16,
            Self::Aaaa => 28,
            Self::Srv => 33,
        }
    }
}

/// Transport of DNS messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// Datagrams, and TCP where the answer does not fit.
    Udp,
    /// A connection.
    Tcp,
}

/// A DNS question and the answer it wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DnsCheck {
    /// The name to look up; `.` is the root.
    pub name: String,
    /// The type of records to look up.
    pub record: RecordType,
    /// UDP or TCP.
    pub transport: Transport,
    /// An address, name or text that one of the records must hold; any record is good where absent.
    pub expect_answer: Option<String>,
}

impl Default for DnsCheck {
    fn default() -> Self {
        Self {
            name: String::new(),
            record: RecordType::A,
            transport: Transport::Udp,
            expect_answer: None,
        }
    }
}

/// A datagram and the answer it wants.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct UdpCheck {
    /// Text to send.
    pub payload: String,
    /// Regular expression that the answer must match. Where absent, silence is good too.
    pub expect_reply: Option<String>,
}

/// Reports that are waited for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PushCheck {
    /// How long a report without a lifetime holds.
    pub ttl: Duration,
}

impl Default for PushCheck {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(30),
        }
    }
}

/// A program to run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ExecCheck {
    /// Its absolute path and arguments.
    pub command: Vec<String>,
}

/// How many of several checks must succeed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Require {
    /// Each.
    All,
    /// One.
    Any,
}

/// A check that is made together with the main one, at the same times and by the same way.
#[derive(Clone, PartialEq, Debug)]
pub struct FurtherCheck {
    /// What is done.
    pub kind: CheckKind,
    /// Port to check; the main check's port if absent.
    pub port: Option<u16>,
    /// PROXY header that connections begin with; none where absent.
    pub send_proxy: Option<ProxyVersion>,
}

/// Which way a check takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Through {
    /// To the backend's own address.
    Backend,
    /// To the VIP, through the real forwarding path.
    Vip,
}

/// When a backend that falls again and again is held down, and for how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Damping {
    /// Falls within `window` after which it is held down; 0: never.
    pub limit: u32,
    /// The time that these falls lie in.
    pub window: Duration,
    /// Time for which its checks must succeed before it is up again, beside `rise`.
    pub hold: Duration,
}

impl Default for Damping {
    fn default() -> Self {
        Self {
            limit: 0,
            window: Duration::from_secs(10 * 60),
            hold: Duration::from_secs(60),
        }
    }
}

/// When passive signals take a backend out before checks do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BreakerSettings {
    /// Failed flows within `window` that take it out; 0: never.
    pub failures: u32,
    /// The time that these lie in; on trial, the time without a failure after which the trial is over.
    pub window: Duration,
    /// Time after which it takes flows on trial, if no check has found out before how things stand.
    pub open: Duration,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            failures: 0,
            window: Duration::from_secs(10),
            open: Duration::from_secs(30),
        }
    }
}

/// How a backend is checked, when, and how results become a verdict.
#[derive(Clone, PartialEq, Debug)]
pub struct CheckSettings {
    /// What is done.
    pub kind: CheckKind,
    /// Checks made together with it; the result combines all.
    pub also: Vec<FurtherCheck>,
    /// How many of the checks must succeed, where there are several.
    pub require: Require,
    /// Time between checks of a backend that is up without failures.
    pub interval: Duration,
    /// Time between checks while the last results contradict the verdict.
    pub fast_interval: Duration,
    /// Longest time between checks while down: `interval` at first, then a tenth of the outage, up to here.
    pub down_interval_max: Duration,
    /// Time after which a check without a result has failed.
    pub timeout: Duration,
    /// Consecutive successes that make a down backend up.
    pub rise: u32,
    /// Consecutive failures that make an up backend down.
    pub fall: u32,
    /// Share of the interval by which the time between two checks differs from it at random, 0 to 1.
    pub jitter: f64,
    /// Damping of a backend that goes down too often.
    pub damping: Damping,
    /// Whether passive signals make it suspect: it is then checked at once, and at the fast interval.
    pub passive: bool,
    /// When that takes it out at once.
    pub breaker: BreakerSettings,
    /// The way checks take.
    pub through: Through,
    /// Port to check; the backend's own where absent.
    pub port: Option<u16>,
    /// PROXY header that connections begin with; none where absent.
    pub send_proxy: Option<ProxyVersion>,
    /// Source address of checks; the kernel's choice where absent.
    pub source: Option<IpAddr>,
    /// Mark of the packets of checks (`SO_MARK`).
    pub mark: Option<u32>,
}

impl Default for CheckSettings {
    fn default() -> Self {
        Self {
            kind: CheckKind::None,
            also: Vec::new(),
            require: Require::All,
            interval: Duration::from_secs(2),
            fast_interval: Duration::from_millis(500),
            down_interval_max: Duration::from_secs(20),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            jitter: 0.1,
            damping: Damping::default(),
            passive: true,
            breaker: BreakerSettings::default(),
            through: Through::Backend,
            port: None,
            send_proxy: None,
            source: None,
            mark: None,
        }
    }
}

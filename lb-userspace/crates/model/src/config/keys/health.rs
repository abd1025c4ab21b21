//! Keys of `[service.health]`: keys of every check first, then keys of some kinds.

use super::{
    access::{Access, Keys, Lens, OfKind, field, of_kind, option, written},
    codec::{
        BOOL, HEADERS, IP, PORT_NUMBER, SHARE, STATUSES, STRING, STRINGS, TIME, count, inline, inline_list,
        quoted, word,
    },
    key::{Key, KeyTable, Separated, Shape},
    row::{
        ADDRESS, BOOLEAN, DURATION, FILE_PATH, FRACTION, HEX, NUMBER, PORT, REGEX, TEXT, default, described,
        number, one_of, optional, required, table, tables, texts, value, words,
    },
};
use crate::{
    health::settings::{
        Bytes, CheckKind, CheckSettings, DialogueStep, DnsCheck, ExecCheck, Expected, FurtherCheck,
        GrpcCheck, HttpCheck, ProxyVersion, PushCheck, RecordType, Require, Through, TlsCheck, Transport,
        UdpCheck,
    },
    state::words,
};

/// All kinds of checks of the file, also kinds that this version does not have.
pub const KINDS: [&str; 12] = [
    "none", "tcp", "http", "https", "tls", "http2", "grpc", "dns", "udp", "icmp", "push", "exec",
];

/// Kinds whose health state takes several results.
const SAMPLED: &[&str] = &[
    "none", "tcp", "http", "https", "tls", "http2", "grpc", "dns", "udp", "icmp", "exec",
];
/// Kinds that check a port.
const WITH_PORT: &[&str] = &[
    "none", "tcp", "http", "https", "tls", "http2", "grpc", "dns", "udp", "exec",
];
/// Kinds that establish TCP connections.
const CONNECTING: &[&str] = &["tcp", "http", "https", "tls", "http2", "grpc", "dns"];
const HTTP: &[&str] = &["http", "https", "http2"];
const HTTP_AND_GRPC: &[&str] = &["http", "https", "http2", "grpc"];
/// Kinds with TLS; `http2` and `grpc` with `tls = true`.
pub(in crate::config) const TLS: &[&str] = &["tls", "https", "http2", "grpc"];
/// Kinds that use TLS only with `tls = true`.
pub(in crate::config) const MAY_HAVE_TLS: &[&str] = &["http2", "grpc"];
const TCP: &[&str] = &["tcp"];
const DNS: &[&str] = &["dns"];
const UDP: &[&str] = &["udp"];

const KIND: Key = required(
    "kind",
    written!(Check: |check: &CheckSettings| Some(quoted(words::kind(&check.kind)))),
    words(|| KINDS.to_vec()),
    "\"http\"",
    "Kind of check",
)
.option("check");
const CHECK_PORT: Key = optional(
    "port",
    option!(Check.port = PORT_NUMBER),
    PORT,
    ("the backend's own", "8081"),
    "Port to check",
)
.of(WITH_PORT);
const SEND_PROXY: Key = optional(
    "send_proxy", option!(Check.send_proxy = word()),
    one_of::<ProxyVersion>(),
    ("none", "\"v2\""),
    "PROXY header that connections begin with",
)
.takes("VERSION")
.more("For servers that take no connection without one. Version 2 has the command LOCAL; version 1 names the ends of the connection.")
.of(CONNECTING);

const SEND: Key = optional(
    "send",
    written!(Step: |step: &DialogueStep| text(step.send.as_ref())),
    TEXT,
    ("nothing", "\"info replication\\r\\n\""),
    "Text to send",
)
.secret()
.of(TCP);
const SEND_HEX: Key = optional(
    "send_hex",
    written!(Step: |step: &DialogueStep| hex(step.send.as_ref())),
    HEX,
    ("nothing", "\"50 49 4e 47 0d 0a\""),
    "Bytes to send",
)
.secret()
.of(TCP);
const EXPECT: Key = optional(
    "expect",
    written!(Step: |step: &DialogueStep| text(bytes(step))),
    TEXT,
    ("nothing", "\"role:master\""),
    "Text that the answer must contain",
)
.of(TCP);
const EXPECT_HEX: Key = optional(
    "expect_hex",
    written!(Step: |step: &DialogueStep| hex(bytes(step))),
    HEX,
    ("nothing", "\"2b 50 4f 4e 47\""),
    "Bytes that the answer must contain",
)
.of(TCP);
const EXPECT_REGEX: Key = optional(
    "expect_regex",
    written!(Step: regex),
    REGEX,
    ("nothing", "\"^SSH-2\""),
    "Expression that the answer must match",
)
.of(TCP);

/// The Host header of HTTP, or the authority of grpc.
const HOST_NAME: Access = Access::Kind(Lens {
    read: |kind, input| {
        let value = input.value(&STRING);
        if let CheckKind::Grpc(check) = kind {
            check.host = value;
        } else if let Some(check) = HttpCheck::of_mut(kind) {
            check.host = value;
        }
    },
    write: |kind, _| {
        let of_grpc = || GrpcCheck::of(kind)?.host.as_ref();
        let host = HttpCheck::of(kind).map_or_else(of_grpc, |check| check.host.as_ref());
        host.map(quoted)
    },
});

const KEEP_ALIVE: Access = Access::Kind(Lens {
    read: |kind, input| {
        let Some(value) = input.value(&BOOL) else { return };
        if let CheckKind::Grpc(check) = kind {
            check.keep_alive = value;
        } else if let Some(check) = HttpCheck::of_mut(kind) {
            check.keep_alive = value;
        }
    },
    write: |kind, _| {
        let of_grpc = || Some(GrpcCheck::of(kind)?.keep_alive);
        let keep_alive = HttpCheck::of(kind).map_or_else(of_grpc, |check| Some(check.keep_alive));
        keep_alive.map(|keep_alive| BOOL.text(&keep_alive))
    },
});

const HEADER_TABLE: Access = Access::Kind(Lens {
    read: |kind, input| {
        if let Some(value) = input.value(&HEADERS)
            && let Some(check) = HttpCheck::of_mut(kind)
        {
            check.headers = value;
        }
    },
    write: |kind, _| {
        let headers = &HttpCheck::of(kind)?.headers;
        (!headers.is_empty()).then(|| HEADERS.text(headers))
    },
});

/// `tls` of the kinds that use TLS only with it.
fn optional_tls(kind: &CheckKind) -> Option<String> {
    let uses = MAY_HAVE_TLS.contains(&words::kind(kind)) && TlsCheck::of(kind).is_some();
    uses.then(|| BOOL.text(&true))
}

/// The steps of a dialogue, unless it is one, which has keys in the table of the check.
fn steps(kind: &CheckKind) -> Option<String> {
    let CheckKind::Dialogue(dialogue) = kind else {
        return None;
    };
    let step = |step: &DialogueStep| inline(pairs(STEP.written(step, Keys::Hidden)));
    (dialogue.steps.len() != 1).then(|| inline_list(dialogue.steps.iter().map(step)))
}

/// Further checks, without their keys at the default.
fn further(checks: &[FurtherCheck]) -> Option<String> {
    let table = |check: &FurtherCheck| {
        let FurtherCheck {
            kind,
            port,
            send_proxy,
        } = check.clone();
        let alone = CheckSettings {
            kind,
            port,
            send_proxy,
            ..CheckSettings::default()
        };
        let written = ALSO.written(&alone, Keys::Hidden);
        inline(pairs(written.filter(|(key, value)| !key.is_default(value))))
    };
    (!checks.is_empty()).then(|| inline_list(checks.iter().map(table)))
}

fn pairs(
    written: impl Iterator<Item = (&'static Key, String)>,
) -> impl Iterator<Item = (&'static str, String)> {
    written.map(|(key, value)| (key.name, value))
}

/// The bytes that a step expects.
fn bytes(step: &DialogueStep) -> Option<&Bytes> {
    match step.expect.as_ref()? {
        Expected::Bytes(bytes) => Some(bytes),
        Expected::Regex(_) => None,
    }
}

fn regex(step: &DialogueStep) -> Option<String> {
    match step.expect.as_ref()? {
        Expected::Bytes(_) => None,
        Expected::Regex(pattern) => Some(quoted(pattern)),
    }
}

fn text(bytes: Option<&Bytes>) -> Option<String> {
    match bytes? {
        Bytes::Text(text) => Some(quoted(text)),
        Bytes::Hex(_) => None,
    }
}

fn hex(bytes: Option<&Bytes>) -> Option<String> {
    match bytes? {
        Bytes::Text(_) => None,
        Bytes::Hex(bytes) => Some(quoted(
            bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        )),
    }
}

macro_rules! with_own_keys {
    ($($key:expr),* $(,)?) => {
        &[
            $($key,)*
            CHECK_PORT,
            SEND_PROXY,
            default("half_open", written!(Kind: |kind: &CheckKind| matches!(kind, CheckKind::TcpHalfOpen).then(|| BOOL.text(&true))), BOOLEAN, "false", "Only begin connections, which the server never sees").of(TCP),
            SEND,
            SEND_HEX,
            EXPECT,
            EXPECT_HEX,
            EXPECT_REGEX,
            optional(
                "steps", written!(Kind: steps),
                tables(&STEP),
                ("one step: `send` and `expect`", "[{ expect = \"220\" }, { send = \"QUIT\\r\\n\", expect = \"221\" }]"),
                "A dialogue of up to 32 steps on one connection, within one timeout",
            )
            .secret()
            .more("Each step has `send`, `send_hex`, `expect`, `expect_hex` or `expect_regex`.")
            .remark("each as in the file: '{ send = \"QUIT\\r\\n\", expect = \"221\" }'; replaces the present ones")
            .of(TCP),
            default("method", of_kind!(HttpCheck.method = STRING), TEXT, "\"GET\"", "Request method").takes("METHOD").of(HTTP),
            default("path", of_kind!(HttpCheck.path = STRING), TEXT, "\"/\"", "Request path").takes("PATH").of(HTTP),
            optional("host", HOST_NAME, TEXT, ("the backend's address", "\"www.example.org\""), "Host header; of grpc the authority")
                .takes("HOST")
                .of(HTTP_AND_GRPC),
            optional(
                "headers", HEADER_TABLE,
                value(Shape::Map, "table of texts", "NAME: VALUE"),
                ("none", "{ Accept = \"application/json\", X-Check = \"lb\" }"),
                "Further request headers",
            )
            .secret()
            .of(HTTP),
            default(
                "expect_status", of_kind!(HttpCheck.expect_status = STATUSES),
                value(Shape::OneOrMore, "a status, a class (`\"2xx\"`), a range, or a list of these", "STATUSES"),
                "200",
                "Statuses that count as success",
            )
            .of(HTTP),
            optional(
                "expect_body", of_kind!(HttpCheck.expect_body = Some(STRING)),
                REGEX,
                ("the body is not read", "'\"status\": *\"ok\"'"),
                "Expression that the body must match",
            )
            .more("Without it the head of the answer decides.")
            .of(HTTP),
            default("max_body", of_kind!(HttpCheck.max_body = count()), number(1, 1_048_576), "65536", "Bytes of the body that are searched").takes("BYTES").of(HTTP),
            default("keep_alive", KEEP_ALIVE, BOOLEAN, "true", "Keep the connection for up to 10 checks")
                .more(
                    "Used where the server answers a second connection beside it. `false` closes the connection after each \
                     check, for servers with few workers.",
                )
                .of(HTTP_AND_GRPC),
            default("service", of_kind!(GrpcCheck.service = STRING), TEXT, "\"\"", "Service that grpc.health.v1.Health is asked about; empty: the server").takes("NAME").of(&["grpc"]),
            default("tls", written!(Kind: optional_tls), BOOLEAN, "false", "Use TLS; http2 without it uses prior knowledge (h2c)").of(MAY_HAVE_TLS),
            default("verify", of_kind!(TlsCheck.verify = BOOL), BOOLEAN, "true", "Require a valid certificate")
                .more("`false` accepts any certificate if the server has its key.")
                .of(TLS),
            optional(
                "server_name", of_kind!(TlsCheck.server_name = Some(STRING)),
                TEXT,
                ("`host`, else the backend's address", "\"www.example.org\""),
                "Name that the certificate must have",
            )
            .takes("NAME")
            .of(TLS),
            optional(
                "ca_file", of_kind!(TlsCheck.ca_file = Some(STRING)),
                FILE_PATH,
                ("the CAs that this machine trusts", "\"/etc/lb/ca.pem\""),
                "The only CAs to trust, PEM; also the server's own certificate",
            )
            .of(TLS),
            optional("cert_file", of_kind!(TlsCheck.cert_file = Some(STRING)), FILE_PATH, ("none", "\"/etc/lb/check.pem\""), "Client certificate, PEM").of(TLS),
            optional("key_file", of_kind!(TlsCheck.key_file = Some(STRING)), FILE_PATH, ("none", "\"/etc/lb/check.key\""), "Key of the client certificate, PEM").of(TLS),
            default("alpn", of_kind!(TlsCheck.alpn = STRINGS), texts("list of texts", "PROTOCOL", Separated::ByCommas), "[]", "Protocols of which the server must take one").of(&["tls"]),
            default(
                "warn_before", of_kind!(TlsCheck.warn_before = TIME),
                described("duration", "DURATION"),
                "\"14d\"",
                "Time before the end of a certificate from which on a warning is given",
            )
            .of(TLS),
            required("name", of_kind!(DnsCheck.name = STRING), TEXT, "\"www.example.org\"", "Name to ask for").takes("NAME").of(DNS),
            default("record", of_kind!(DnsCheck.record = word()), one_of::<RecordType>(), "\"A\"", "Type of record").takes("TYPE").of(DNS),
            default("transport", of_kind!(DnsCheck.transport = word()), one_of::<Transport>(), "\"udp\"", "Transport of the question").takes("PROTOCOL").of(DNS),
            optional("expect_answer", of_kind!(DnsCheck.expect_answer = Some(STRING)), TEXT, ("any answer", "\"192.0.2.10\""), "Content that one of the records must have").of(DNS),
            required("payload", of_kind!(UdpCheck.payload = STRING), TEXT, "\"ping\"", "Datagram to send").secret().of(UDP),
            optional(
                "expect_reply", of_kind!(UdpCheck.expect_reply = Some(STRING)),
                REGEX,
                ("silence counts as success", "\"pong\""),
                "Expression that the reply must match",
            )
            .of(UDP),
            required("command", of_kind!(ExecCheck.command = STRINGS), texts("list of texts", "WORD", Separated::AsWords), "[\"/usr/local/bin/check\", \"--fast\"]", "Program and arguments")
                .secret()
                .more(
                    "It gets `LB_ADDRESS`, `LB_PORT`, `PATH` and `LANG`, has no capabilities, and succeeds by exiting with 0.",
                )
                .of(&["exec"]),
            default("ttl", of_kind!(PushCheck.ttl = TIME), DURATION, "\"30s\"", "How long a report holds; then the backend is down").of(&["push"]),
        ]
    };
}

/// `[service.health]`.
pub const HEALTH: KeyTable = KeyTable {
    header: "[service.health]",
    prefix: "health.",
    about: "How backends are checked. Without the table they count as unchecked and take flows.",
    keys: with_own_keys![
        KIND,
        default("interval", field!(Check.interval = TIME), DURATION, "\"2s\"", "Time between checks; from 1ms"),
        default("fast_interval", field!(Check.fast_interval = TIME), DURATION, "\"500ms\"", "Time between checks while results contradict the health state"),
        default("down_interval_max", field!(Check.down_interval_max = TIME), DURATION, "\"20s\"", "Longest time between checks while the backend is down")
            .more("It is `interval` at first, and a tenth of the outage once that is longer."),
        default("timeout", field!(Check.timeout = TIME), DURATION, "\"1s\"", "Time after which a check without a result has failed").of(SAMPLED),
        default("rise", field!(Check.rise = count()), number(1, u32::MAX), "2", "Consecutive successes that make a backend up").of(SAMPLED),
        default("fall", field!(Check.fall = count()), number(1, u32::MAX), "3", "Consecutive failures that make a backend down").of(SAMPLED),
        default("jitter", field!(Check.jitter = SHARE), FRACTION, "0.1", "Share of the interval by which checks move at random").more(
            "Several balancers do not check a backend in step, and one does not check all at once, not even after a restart.",
        ),
        default(
            "flap_limit", field!(Check.damping.limit = count()),
            number(0, 100),
            "0",
            "Falls within flap_window after which a backend is held down; 0: never",
        )
        .more("It is up again when its checks have succeeded for `flap_hold` without a failure, beside `rise`."),
        default("flap_window", field!(Check.damping.window = TIME), DURATION, "\"10m\"", "Time in which the falls of flap_limit lie"),
        default("flap_hold", field!(Check.damping.hold = TIME), DURATION, "\"1m\"", "Time for which checks must succeed before a flapping backend is up"),
        default("passive", field!(Check.passive = BOOL), BOOLEAN, "true", "Check a backend at once when its flows fail").more(
            "Mode `nat` counts SYNs that a client repeats before any answer, resets as first answer, and ICMP unreachable. Such a \
             backend is suspect, and checked at `fast_interval` until a check succeeds.",
        ),
        default(
            "breaker_failures", field!(Check.breaker.failures = count()),
            number(0, 1000),
            "0",
            "Failed flows within breaker_window that take a backend out at once (circuit breaker); 0: never",
        )
        .more("A check that succeeds lets it back. If no check has a result for `breaker_open`, it takes flows on trial."),
        default("breaker_window", field!(Check.breaker.window = TIME), DURATION, "\"10s\"", "Time in which the failures of breaker_failures lie"),
        default("breaker_open", field!(Check.breaker.open = TIME), DURATION, "\"30s\"", "Time after which a backend that was taken out takes flows on trial"),
        default("through", field!(Check.through = word()), one_of::<Through>(), "\"backend\"", "Where checks go").takes("WAY").more(
            "`backend`: to the backend's address. `vip`: to the service's address, through the forwarding path: \
             [through.md](through.md).",
        ),
        optional("source", option!(Check.source = IP), ADDRESS, ("the kernel's choice", "\"10.0.0.1\""), "Source address of checks"),
        optional("mark", option!(Check.mark = count()), NUMBER, ("none", "7"), "Mark (SO_MARK) of the packets of checks"),
        table("also", written!(Check: |check: &CheckSettings| further(&check.also)), &ALSO, "Up to 7 further checks, made together with this one")
            .secret()
            .remark("each as in the file: '{ kind = \"tcp\", port = 9090 }'; replaces the present ones; none: no further ones"),
        default("require", field!(Check.require = word()), one_of::<Require>(), "\"all\"", "How many of several checks must succeed").takes("HOW_MANY"),
    ],
};

/// The keys of [`HEALTH`] without a table, for programs that only check health.
pub const CHECK: KeyTable = KeyTable {
    header: "the settings of a check",
    ..HEALTH
};

/// `[[service.health.also]]`.
pub const ALSO: KeyTable = KeyTable {
    header: "[[service.health.also]]",
    prefix: "",
    about: "A further check, made at the same times as the main one: `kind`, `port` and the keys of its kind.",
    keys: with_own_keys![KIND],
};

/// `[[service.health.steps]]`.
pub const STEP: KeyTable = KeyTable {
    header: "[[service.health.steps]]",
    prefix: "",
    about: "A step of a dialogue.",
    keys: &[SEND, SEND_HEX, EXPECT, EXPECT_HEX, EXPECT_REGEX],
};

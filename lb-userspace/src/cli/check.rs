//! Options about checks: one for each key of `[service.health]`.

use clap::Args;
use serde::{Deserialize, de::DeserializeOwned};

use crate::api::requests::{HealthSpec, StatusSpec, StatusesSpec, StepSpec};

/// All of them.
#[derive(Args, Debug)]
pub(super) struct CheckOptions {
    #[command(flatten)]
    any: AnyKind,
    #[command(flatten)]
    own: OfKinds,
}

/// Keys of checks of any kind.
#[derive(Args, Debug)]
#[command(next_help_heading = "Checks")]
struct AnyKind {
    /// How backends are checked: none, tcp, tls, http, https, http2, grpc, dns, udp, icmp, push or exec [default: none]
    #[arg(long, value_name = "KIND")]
    check: Option<String>,
    /// Time between checks [default: 2s]
    #[arg(long, value_name = "DURATION")]
    check_interval: Option<String>,
    /// Time between checks while changing state [default: 500ms]
    #[arg(long, value_name = "DURATION")]
    check_fast_interval: Option<String>,
    /// Longest time between checks while down [default: 20s]
    #[arg(long, value_name = "DURATION")]
    check_down_interval_max: Option<String>,
    /// Time after which a check has failed [default: 1s]
    #[arg(long, value_name = "DURATION")]
    check_timeout: Option<String>,
    /// Successes that make a backend up [default: 2]
    #[arg(long, value_name = "N")]
    check_rise: Option<u32>,
    /// Failures that make a backend down [default: 3]
    #[arg(long, value_name = "N")]
    check_fall: Option<u32>,
    /// Share of the interval by which checks move at random [default: 0.1]
    #[arg(long, value_name = "SHARE")]
    check_jitter: Option<f64>,
    /// Falls within the window after which a backend is held down; 0: never [default: 0]
    #[arg(long, value_name = "N")]
    check_flap_limit: Option<u32>,
    /// The time that these falls lie in [default: 10m]
    #[arg(long, value_name = "DURATION")]
    check_flap_window: Option<String>,
    /// Time for which its checks must succeed then [default: 1m]
    #[arg(long, value_name = "DURATION")]
    check_flap_hold: Option<String>,
    /// Listen to what flows tell about backends [default: true]
    #[arg(long, value_name = "BOOL")]
    check_passive: Option<bool>,
    /// Failed flows within the window that take a backend out; 0: never [default: 0]
    #[arg(long, value_name = "N")]
    check_breaker_failures: Option<u32>,
    /// The time that these lie in [default: 10s]
    #[arg(long, value_name = "DURATION")]
    check_breaker_window: Option<String>,
    /// Time after which it takes flows on trial [default: 30s]
    #[arg(long, value_name = "DURATION")]
    check_breaker_open: Option<String>,
    /// backend, to its address, or vip, through the forwarding path [default: backend]
    #[arg(long, value_name = "WAY")]
    check_through: Option<String>,
    /// Port to check [default: the backend's own]
    #[arg(long, value_name = "N")]
    check_port: Option<u16>,
    /// Source address of checks [default: the kernel's choice]
    #[arg(long, value_name = "IP")]
    check_source: Option<String>,
    /// Mark of the packets of checks [default: none]
    #[arg(long, value_name = "N")]
    check_mark: Option<u32>,
    /// A further check as in the file, for example '{ kind = "tcp", port = 9090 }'; may be given several times, and replaces those there are; none: no further ones
    #[arg(long, value_name = "TABLE", value_parser = table)]
    check_also: Vec<Also>,
    /// How many of several checks must succeed: all or any [default: all]
    #[arg(long, value_name = "HOW_MANY")]
    check_require: Option<String>,
}

/// Keys of some kinds.
#[derive(Args, Debug)]
#[command(next_help_heading = "Checks of some kinds")]
struct OfKinds {
    /// Kinds over TCP: begin connections with a PROXY header, v1 or v2 [default: none]
    #[arg(long, value_name = "VERSION")]
    check_send_proxy: Option<String>,
    /// tcp: only begin connections [default: false]
    #[arg(long, value_name = "BOOL")]
    check_half_open: Option<bool>,
    /// tcp: what is sent
    #[arg(long, value_name = "TEXT")]
    check_send: Option<String>,
    /// tcp: the same in hexadecimal
    #[arg(long, value_name = "HEX")]
    check_send_hex: Option<String>,
    /// tcp: text that must come
    #[arg(long, value_name = "TEXT")]
    check_expect: Option<String>,
    /// tcp: bytes that must come, in hexadecimal
    #[arg(long, value_name = "HEX")]
    check_expect_hex: Option<String>,
    /// tcp: what the answer must match
    #[arg(long, value_name = "REGEX")]
    check_expect_regex: Option<String>,
    /// tcp: a step of a dialogue as in the file, for example '{ send = "QUIT\r\n", expect = "221" }'; may be given several times, and replaces those there are
    #[arg(long, value_name = "TABLE", value_parser = step)]
    check_steps: Vec<StepSpec>,
    /// HTTP: method [default: GET]
    #[arg(long, value_name = "METHOD")]
    check_method: Option<String>,
    /// HTTP: path [default: /]
    #[arg(long, value_name = "PATH")]
    check_path: Option<String>,
    /// HTTP: Host header; grpc: authority [default: the backend's address]
    #[arg(long, value_name = "HOST")]
    check_host: Option<String>,
    /// HTTP: a further header; may be given several times
    #[arg(long, value_name = "NAME: VALUE", value_parser = header)]
    check_headers: Vec<(String, String)>,
    /// HTTP: statuses that are good, for example 204, 2xx or 200,300-399 [default: 200]
    #[arg(long, value_name = "STATUSES", value_delimiter = ',')]
    check_expect_status: Vec<String>,
    /// HTTP: what the body must match
    #[arg(long, value_name = "REGEX")]
    check_expect_body: Option<String>,
    /// HTTP: bytes of the body that are read at most [default: 65536]
    #[arg(long, value_name = "BYTES")]
    check_max_body: Option<u32>,
    /// HTTP and grpc: keep the connection for the next checks [default: true]
    #[arg(long, value_name = "BOOL")]
    check_keep_alive: Option<bool>,
    /// grpc: service asked about [default: the server as a whole]
    #[arg(long, value_name = "NAME")]
    check_service: Option<String>,
    /// http2 and grpc: use TLS [default: false]
    #[arg(long, value_name = "BOOL")]
    check_tls: Option<bool>,
    /// TLS: the certificate must be valid [default: true]
    #[arg(long, value_name = "BOOL")]
    check_verify: Option<bool>,
    /// TLS: name in the certificate [default: the host, else the backend's address]
    #[arg(long, value_name = "NAME")]
    check_server_name: Option<String>,
    /// TLS: the only CAs to trust, PEM [default: those of the machine]
    #[arg(long, value_name = "FILE")]
    check_ca_file: Option<String>,
    /// TLS: certificate of the client, PEM
    #[arg(long, value_name = "FILE")]
    check_cert_file: Option<String>,
    /// TLS: key of the client, PEM
    #[arg(long, value_name = "FILE")]
    check_key_file: Option<String>,
    /// tls: protocols of which the server must take one, for example h2,http/1.1
    #[arg(long, value_name = "PROTOCOL", value_delimiter = ',')]
    check_alpn: Vec<String>,
    /// TLS: time before the end of a certificate from which on that is told [default: 14d]
    #[arg(long, value_name = "DURATION")]
    check_warn_before: Option<String>,
    /// dns: name asked for
    #[arg(long, value_name = "NAME")]
    check_name: Option<String>,
    /// dns: type of record [default: A]
    #[arg(long, value_name = "TYPE")]
    check_record: Option<String>,
    /// dns: udp or tcp [default: udp]
    #[arg(long, value_name = "PROTOCOL")]
    check_transport: Option<String>,
    /// dns: what one of the records must hold
    #[arg(long, value_name = "TEXT")]
    check_expect_answer: Option<String>,
    /// udp: what is sent
    #[arg(long, value_name = "TEXT")]
    check_payload: Option<String>,
    /// udp: what the reply must match
    #[arg(long, value_name = "REGEX")]
    check_expect_reply: Option<String>,
    /// exec: path of the program and, given again for each, its arguments
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    check_command: Vec<String>,
    /// push: how long a report holds [default: 30s]
    #[arg(long, value_name = "DURATION")]
    check_ttl: Option<String>,
}

/// A further check, or none.
#[derive(Clone, PartialEq, Debug)]
enum Also {
    None,
    Check(Box<HealthSpec>),
}

/// A further check as in the configuration file.
fn table(text: &str) -> Result<Also, String> {
    match text {
        "none" => Ok(Also::None),
        text => inline(text).map(|check| Also::Check(Box::new(check))),
    }
}

/// A step of a dialogue as in the configuration file.
fn step(text: &str) -> Result<StepSpec, String> {
    inline(text)
}

/// An inline table.
fn inline<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    #[derive(Deserialize)]
    struct Line<T> {
        table: T,
    }
    let line: Result<Line<T>, _> = toml::from_str(&format!("table = {text}"));
    line.map(|line| line.table)
        .map_err(|error| error.message().to_owned())
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write it as \"Name: value\"")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

impl CheckOptions {
    /// What is asked for, if anything is.
    pub(super) fn spec(self) -> Option<HealthSpec> {
        let Self { any, own } = self;
        let also = some(any.check_also).map(|further| {
            let checks = further.into_iter().filter_map(|also| match also {
                Also::None => None,
                Also::Check(check) => Some(*check),
            });
            checks.collect()
        });
        let status = |text: String| match text.parse() {
            Ok(status) => StatusSpec::One(status),
            Err(_) => StatusSpec::Text(text),
        };
        let spec = HealthSpec {
            kind: any.check,
            interval: any.check_interval,
            fast_interval: any.check_fast_interval,
            down_interval_max: any.check_down_interval_max,
            timeout: any.check_timeout,
            rise: any.check_rise,
            fall: any.check_fall,
            jitter: any.check_jitter,
            flap_limit: any.check_flap_limit,
            flap_window: any.check_flap_window,
            flap_hold: any.check_flap_hold,
            passive: any.check_passive,
            breaker_failures: any.check_breaker_failures,
            breaker_window: any.check_breaker_window,
            breaker_open: any.check_breaker_open,
            through: any.check_through,
            port: any.check_port,
            source: any.check_source,
            mark: any.check_mark,
            also,
            require: any.check_require,
            send_proxy: own.check_send_proxy,
            half_open: own.check_half_open,
            send: own.check_send,
            send_hex: own.check_send_hex,
            expect: own.check_expect,
            expect_hex: own.check_expect_hex,
            expect_regex: own.check_expect_regex,
            steps: some(own.check_steps),
            method: own.check_method,
            path: own.check_path,
            host: own.check_host,
            headers: some(own.check_headers).map(|headers| headers.into_iter().collect()),
            expect_status: some(own.check_expect_status)
                .map(|texts| StatusesSpec::List(texts.into_iter().map(status).collect())),
            expect_body: own.check_expect_body,
            max_body: own.check_max_body,
            keep_alive: own.check_keep_alive,
            service: own.check_service,
            tls: own.check_tls,
            verify: own.check_verify,
            server_name: own.check_server_name,
            ca_file: own.check_ca_file,
            cert_file: own.check_cert_file,
            key_file: own.check_key_file,
            alpn: some(own.check_alpn),
            warn_before: own.check_warn_before,
            name: own.check_name,
            record: own.check_record,
            transport: own.check_transport,
            expect_answer: own.check_expect_answer,
            payload: own.check_payload,
            expect_reply: own.check_expect_reply,
            command: some(own.check_command),
            ttl: own.check_ttl,
        };
        (spec != HealthSpec::default()).then_some(spec)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::tests::option_names;

    #[derive(Parser, Debug)]
    struct Alone {
        #[command(flatten)]
        options: CheckOptions,
    }

    fn spec(args: &[&str]) -> Result<Option<HealthSpec>, clap::Error> {
        let parsed = Alone::try_parse_from([&["lb"], args].concat())?;
        Ok(parsed.options.spec())
    }

    /// What the file can say, the command line can.
    #[test]
    fn every_key_of_a_check_has_its_option() {
        let schema = serde_json::to_value(<HealthSpec as utoipa::PartialSchema>::schema()).unwrap();
        let keys = schema["properties"].as_object().unwrap().keys();
        let names = keys.map(|key| match key.as_str() {
            "kind" => "check".to_owned(),
            key => format!("check-{}", key.replace('_', "-")),
        });
        let mut names: Vec<String> = names.collect();
        names.sort();
        assert!(names.len() > 40, "{names:?}");
        assert_eq!(option_names(&["service", "set"], "check"), names);
        assert_eq!(option_names(&["service", "add"], "check"), names);
    }

    #[test]
    fn values_are_read_as_the_file_has_them() {
        let http = |path: &str| HealthSpec {
            kind: Some("http".to_owned()),
            path: Some(path.to_owned()),
            ..HealthSpec::default()
        };
        for (args, expected) in [
            (&[][..], None),
            (&["--check", "http", "--check-path", "/a b"], Some(http("/a b"))),
            (
                &[
                    "--check-also",
                    "{ kind = \"http\", path = \"/x,y\" }",
                    "--check-also",
                    "{ kind = \"icmp\" }",
                ],
                Some(HealthSpec {
                    also: Some(vec![
                        http("/x,y"),
                        HealthSpec {
                            kind: Some("icmp".to_owned()),
                            ..HealthSpec::default()
                        },
                    ]),
                    ..HealthSpec::default()
                }),
            ),
            (
                &["--check-also", "none"],
                Some(HealthSpec {
                    also: Some(Vec::new()),
                    ..HealthSpec::default()
                }),
            ),
            (
                &[
                    "--check-headers",
                    "X-A: b: c",
                    "--check-expect-status",
                    "200,300-399",
                    "--check-alpn",
                    "h2,http/1.1",
                ],
                Some(HealthSpec {
                    headers: Some([("X-A".to_owned(), "b: c".to_owned())].into()),
                    expect_status: Some(StatusesSpec::List(vec![
                        StatusSpec::One(200),
                        StatusSpec::Text("300-399".to_owned()),
                    ])),
                    alpn: Some(vec!["h2".to_owned(), "http/1.1".to_owned()]),
                    ..HealthSpec::default()
                }),
            ),
            (
                &[
                    "--check-steps",
                    "{ expect = \"220\" }",
                    "--check-steps",
                    "{ send_hex = \"0d 0a\" }",
                    "--check-send-proxy",
                    "v2",
                ],
                Some(HealthSpec {
                    send_proxy: Some("v2".to_owned()),
                    steps: Some(vec![
                        StepSpec {
                            expect: Some("220".to_owned()),
                            ..StepSpec::default()
                        },
                        StepSpec {
                            send_hex: Some("0d 0a".to_owned()),
                            ..StepSpec::default()
                        },
                    ]),
                    ..HealthSpec::default()
                }),
            ),
            (
                &["--check-command", "/bin/true", "--check-command", "-v"],
                Some(HealthSpec {
                    command: Some(vec!["/bin/true".to_owned(), "-v".to_owned()]),
                    ..HealthSpec::default()
                }),
            ),
        ] {
            assert_eq!(spec(args).unwrap(), expected, "{args:?}");
        }
        for (args, words) in [
            (["--check-also", "{ kynd = \"tcp\" }"], "unknown field `kynd`"),
            (["--check-also", "tcp"], "--check-also"),
            (["--check-headers", "X-A"], "write it as \"Name: value\""),
        ] {
            let error = spec(&args).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}

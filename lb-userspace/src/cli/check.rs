//! Options about checks: one for each key of `[service.health]`.

use clap::Args;
use serde::{Deserialize, de::DeserializeOwned};

use super::help::{help, remark, several};
use crate::{
    config::keys,
    spec::{HealthSpec, StatusSpec, StatusesSpec, StepSpec},
};

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
    #[arg(long, value_name = "KIND", help = help(&keys::HEALTH, "kind"))]
    check: Option<String>,
    #[arg(long, value_name = "DURATION", help = help(&keys::HEALTH, "interval"))]
    check_interval: Option<String>,
    #[arg(long, value_name = "DURATION", help = help(&keys::HEALTH, "fast_interval"))]
    check_fast_interval: Option<String>,
    #[arg(long, value_name = "DURATION", help = help(&keys::HEALTH, "down_interval_max"))]
    check_down_interval_max: Option<String>,
    #[arg(long, value_name = "DURATION", help = help(&keys::HEALTH, "timeout"))]
    check_timeout: Option<String>,
    #[arg(long, value_name = "N", help = help(&keys::HEALTH, "rise"))]
    check_rise: Option<u32>,
    #[arg(long, value_name = "N", help = help(&keys::HEALTH, "fall"))]
    check_fall: Option<u32>,
    #[arg(long, value_name = "SHARE", help = help(&keys::HEALTH, "jitter"))]
    check_jitter: Option<f64>,
    #[arg(long, value_name = "N", help = help(&keys::HEALTH, "flap_limit"))]
    check_flap_limit: Option<u32>,
    #[arg(long, value_name = "DURATION", help = help(&keys::HEALTH, "flap_window"))]
    check_flap_window: Option<String>,
    #[arg(long, value_name = "DURATION", help = help(&keys::HEALTH, "flap_hold"))]
    check_flap_hold: Option<String>,
    #[arg(long, value_name = "BOOL", help = help(&keys::HEALTH, "passive"))]
    check_passive: Option<bool>,
    #[arg(long, value_name = "N", help = help(&keys::HEALTH, "breaker_failures"))]
    check_breaker_failures: Option<u32>,
    #[arg(long, value_name = "DURATION", help = help(&keys::HEALTH, "breaker_window"))]
    check_breaker_window: Option<String>,
    #[arg(long, value_name = "DURATION", help = help(&keys::HEALTH, "breaker_open"))]
    check_breaker_open: Option<String>,
    #[arg(long, value_name = "WAY", help = help(&keys::HEALTH, "through"))]
    check_through: Option<String>,
    #[arg(long, value_name = "N", help = help(&keys::HEALTH, "port"))]
    check_port: Option<u16>,
    #[arg(long, value_name = "IP", help = help(&keys::HEALTH, "source"))]
    check_source: Option<String>,
    #[arg(long, value_name = "N", help = help(&keys::HEALTH, "mark"))]
    check_mark: Option<u32>,
    #[arg(long, value_name = "TABLE", value_parser = table, help = remark(help(&keys::HEALTH, "also"), "each as in the file: '{ kind = \"tcp\", port = 9090 }'; replaces the present ones; none: no further ones"))]
    check_also: Vec<Also>,
    #[arg(long, value_name = "HOW_MANY", help = help(&keys::HEALTH, "require"))]
    check_require: Option<String>,
}

/// Keys of some kinds.
#[derive(Args, Debug)]
#[command(next_help_heading = "Checks of some kinds")]
struct OfKinds {
    #[arg(long, value_name = "VERSION", help = help(&keys::HEALTH, "send_proxy"))]
    check_send_proxy: Option<String>,
    #[arg(long, value_name = "BOOL", help = help(&keys::HEALTH, "half_open"))]
    check_half_open: Option<bool>,
    #[arg(long, value_name = "TEXT", help = help(&keys::HEALTH, "send"))]
    check_send: Option<String>,
    #[arg(long, value_name = "HEX", help = help(&keys::HEALTH, "send_hex"))]
    check_send_hex: Option<String>,
    #[arg(long, value_name = "TEXT", help = help(&keys::HEALTH, "expect"))]
    check_expect: Option<String>,
    #[arg(long, value_name = "HEX", help = help(&keys::HEALTH, "expect_hex"))]
    check_expect_hex: Option<String>,
    #[arg(long, value_name = "REGEX", help = help(&keys::HEALTH, "expect_regex"))]
    check_expect_regex: Option<String>,
    #[arg(long, value_name = "TABLE", value_parser = step, help = remark(help(&keys::HEALTH, "steps"), "each as in the file: '{ send = \"QUIT\\r\\n\", expect = \"221\" }'; replaces the present ones"))]
    check_steps: Vec<StepSpec>,
    #[arg(long, value_name = "METHOD", help = help(&keys::HEALTH, "method"))]
    check_method: Option<String>,
    #[arg(long, value_name = "PATH", help = help(&keys::HEALTH, "path"))]
    check_path: Option<String>,
    #[arg(long, value_name = "HOST", help = help(&keys::HEALTH, "host"))]
    check_host: Option<String>,
    #[arg(long, value_name = "NAME: VALUE", value_parser = header, help = several(help(&keys::HEALTH, "headers")))]
    check_headers: Vec<(String, String)>,
    #[arg(long, value_name = "STATUSES", value_delimiter = ',', help = help(&keys::HEALTH, "expect_status"))]
    check_expect_status: Vec<String>,
    #[arg(long, value_name = "REGEX", help = help(&keys::HEALTH, "expect_body"))]
    check_expect_body: Option<String>,
    #[arg(long, value_name = "BYTES", help = help(&keys::HEALTH, "max_body"))]
    check_max_body: Option<u32>,
    #[arg(long, value_name = "BOOL", help = help(&keys::HEALTH, "keep_alive"))]
    check_keep_alive: Option<bool>,
    #[arg(long, value_name = "NAME", help = help(&keys::HEALTH, "service"))]
    check_service: Option<String>,
    #[arg(long, value_name = "BOOL", help = help(&keys::HEALTH, "tls"))]
    check_tls: Option<bool>,
    #[arg(long, value_name = "BOOL", help = help(&keys::HEALTH, "verify"))]
    check_verify: Option<bool>,
    #[arg(long, value_name = "NAME", help = help(&keys::HEALTH, "server_name"))]
    check_server_name: Option<String>,
    #[arg(long, value_name = "FILE", help = help(&keys::HEALTH, "ca_file"))]
    check_ca_file: Option<String>,
    #[arg(long, value_name = "FILE", help = help(&keys::HEALTH, "cert_file"))]
    check_cert_file: Option<String>,
    #[arg(long, value_name = "FILE", help = help(&keys::HEALTH, "key_file"))]
    check_key_file: Option<String>,
    #[arg(long, value_name = "PROTOCOL", value_delimiter = ',', help = help(&keys::HEALTH, "alpn"))]
    check_alpn: Vec<String>,
    #[arg(long, value_name = "DURATION", help = help(&keys::HEALTH, "warn_before"))]
    check_warn_before: Option<String>,
    #[arg(long, value_name = "NAME", help = help(&keys::HEALTH, "name"))]
    check_name: Option<String>,
    #[arg(long, value_name = "TYPE", help = help(&keys::HEALTH, "record"))]
    check_record: Option<String>,
    #[arg(long, value_name = "PROTOCOL", help = help(&keys::HEALTH, "transport"))]
    check_transport: Option<String>,
    #[arg(long, value_name = "TEXT", help = help(&keys::HEALTH, "expect_answer"))]
    check_expect_answer: Option<String>,
    #[arg(long, value_name = "TEXT", help = help(&keys::HEALTH, "payload"))]
    check_payload: Option<String>,
    #[arg(long, value_name = "REGEX", help = help(&keys::HEALTH, "expect_reply"))]
    check_expect_reply: Option<String>,
    #[arg(long, value_name = "WORD", allow_hyphen_values = true, help = several(help(&keys::HEALTH, "command")))]
    check_command: Vec<String>,
    #[arg(long, value_name = "DURATION", help = help(&keys::HEALTH, "ttl"))]
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
    /// The requested settings, if any.
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

    /// The command line can set every key of the file.
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

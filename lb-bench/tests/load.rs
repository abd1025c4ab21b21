//! The load tool against real servers: what it measures, what it says of errors, and its exit codes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests, which fail by panics"
)]

mod servers;

use std::{
    fs,
    io::Read,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::{Command, Output},
    sync::atomic::Ordering,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use servers::{Answer, Echoes, OK, STALL};

/// A load that is measured at once and not for long.
const SHORT: [&str; 4] = ["-w", "0s", "-d", "100ms"];

fn tool(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lb-bench"));
    command.args(arguments);
    command
}

fn output(arguments: &[&str]) -> Output {
    tool(arguments).output().unwrap()
}

/// The result of a load that could be sent, and its exit code.
fn result(arguments: &[&str]) -> (Value, Option<i32>) {
    let output = output(&[arguments, &["--json"]].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let result = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{errors}"));
    (result, output.status.code())
}

/// What the tool says of a load that cannot be sent.
fn refusal(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    text
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}/")
}

/// A port on which nothing listens.
fn closed() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
}

fn seconds(result: &Value, percentile: &str) -> f64 {
    result["latency"][percentile].as_f64().unwrap()
}

fn count(result: &Value, name: &str) -> u64 {
    result[name].as_u64().unwrap()
}

/// 1,000 requests a second for 2 s, of which a stall holds up those of 1 s: the slowest hundredth of all waits for all of the stall but
/// the first 20 ms. How busy the machine is can only lengthen that. Counted from their begins, 8 requests alone would have waited.
#[test]
fn a_stall_shows_at_a_fixed_rate_and_hides_in_a_closed_loop() {
    let load = ["-w", "0s", "-d", "2s", "-t", "1"];
    let server = url(servers::http(Answer::StallsOnce));
    let (open, _) = result(&[&load[..], &["-c", "8", "--rate", "1000", &server]].concat());
    let computed = STALL.as_secs_f64() - 0.02;
    assert!(seconds(&open, "p99") >= computed * 0.95, "{open:#}");
    // One request of this loop waits; 100 others are enough to hide it.
    let server = url(servers::http(Answer::StallsOnce));
    let (closed, _) = result(&[&load[..], &["-c", "1", &server]].concat());
    assert!(seconds(&closed, "p99") < computed / 2.0, "{closed:#}");
    assert!(seconds(&closed, "max") >= computed, "{closed:#}");
    assert!(
        closed["notes"][0].as_str().unwrap().contains("hide stalls"),
        "{closed:#}"
    );
}

/// Connections that begin late wait longer than the server takes, and thousands of them reach their time limit.
#[test]
fn all_connections_begin_before_any_of_them_has_sent_many_requests() {
    let (server, behind) = servers::counting(2_000);
    let load = [
        "-w",
        "0s",
        "-d",
        "500ms",
        "-t",
        "1",
        "-c",
        "2000",
        "--timeout",
        "60s",
    ];
    let (result, _) = result(&[&load[..], &[&url(server)]].concat());
    assert_eq!(count(&result, "errors"), 0, "{result:#}");
    assert_eq!(behind.load(Ordering::Relaxed), 0, "{result:#}");
}

#[test]
fn what_cannot_be_sent_in_time_is_reported_and_has_a_latency() {
    let server = url(servers::http(Answer::Never));
    let (result, _) = result(&[
        "-w",
        "0s",
        "-d",
        "300ms",
        "-c",
        "1",
        "--timeout",
        "100ms",
        "--rate",
        "1000",
        &server,
    ]);
    let timeouts = result["errors_by_kind"]["timeout"].as_u64().unwrap();
    assert_eq!(timeouts + count(&result, "unsent"), 300, "{result:#}");
    assert!(timeouts <= 3, "{result:#}");
    assert_eq!(count(&result, "requests"), 0);
    // Half of the 300 requests were due in the first half.
    assert!(seconds(&result, "p50") >= 0.09, "{result:#}");
    assert!(
        result["notes"].to_string().contains("the rate was not reached"),
        "{result:#}"
    );
}

#[test]
fn each_assertion_can_fail() {
    let server = url(servers::http(OK));
    let failing = [
        "p50<1ns",
        "p75<1ns",
        "p99.99<1ns",
        "min<1ns",
        "mean<=0.5us",
        "max<1us",
        "p0.5>10s",
        "rps>1000000000",
        "rps=0",
        "requests<1",
        "requests!=0,requests=0",
        "errors>0",
        "errors!=0",
        "timeout>=1",
        "2xx=0",
        "200<1",
        "503>0",
        "late>100000000",
        "unsent>0",
    ];
    for assertion in failing {
        let (result, code) = result(&[&SHORT[..], &["-c", "1", "--assert", assertion, &server]].concat());
        assert_eq!(code, Some(1), "{assertion}: {result:#}");
        let last = result["assertions"].as_array().unwrap().last().unwrap();
        assert_eq!(last["passed"], false, "{assertion}: {last}");
    }
    let passing = "p99<10s,min>0ns,max<=1m,errors=0,rps>0,requests>=1,2xx>0,5xx=0,404=0,unsent<=0,closed=0";
    let passing = passing.replace("1m", "60s");
    let (result, code) = result(
        &[
            &SHORT[..],
            &["--assert", &passing, "--assert", "mean<10s", &server],
        ]
        .concat(),
    );
    assert_eq!(code, Some(0), "{result:#}");
    assert_eq!(result["assertions"].as_array().unwrap().len(), 12);
    // Where nothing is answered, no limit of a latency is kept, and errors count.
    let server = url(servers::http(Answer::Last("")));
    for assertion in ["p99<10s", "errors=0", "closed=0"] {
        let (result, code) = self::result(&[&SHORT[..], &["--assert", assertion, &server]].concat());
        assert_eq!(code, Some(1), "{assertion}: {result:#}");
    }
}

#[test]
fn errors_are_counted_by_kind() {
    const ERROR: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
    for (answer, kind) in [
        (Answer::Last(""), "closed"),
        (
            Answer::Last("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhal"),
            "closed",
        ),
        (Answer::Bytes("220 mail.test ESMTP\r\n"), "protocol"),
        (Answer::Bytes(ERROR), "status"),
        (Answer::Never, "timeout"),
    ] {
        let server = url(servers::http(answer));
        let (result, code) = result(&[&SHORT[..], &["-c", "2", "--timeout", "50ms", &server]].concat());
        assert_eq!(code, Some(0));
        assert!(count(&result, "errors") > 0, "{kind}: {result:#}");
        assert_eq!(
            result["errors_by_kind"][kind], result["errors"],
            "{kind}: {result:#}"
        );
    }
}

#[test]
fn connections_are_kept_or_opened_for_each_request() {
    let server = url(servers::http(OK));
    let (kept, _) = result(&[&SHORT[..], &["-c", "3", &server]].concat());
    assert_eq!(
        (count(&kept, "connections_opened"), count(&kept, "errors")),
        (3, 0),
        "{kept:#}"
    );
    let (new, _) = result(&[&SHORT[..], &["-c", "3", "--no-keepalive", &server]].concat());
    assert!(count(&new, "requests") > 0, "{new:#}");
    assert!(
        count(&new, "connections_opened") >= count(&new, "requests"),
        "{new:#}"
    );
    assert_eq!(count(&new, "errors"), 0, "{new:#}");
    // A server may close a connection after an answer without saying so.
    let server = url(servers::http(Answer::Last(
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    )));
    let (closed, _) = result(&[&SHORT[..], &[&server]].concat());
    assert_eq!(count(&closed, "errors"), 0, "{closed:#}");
}

#[test]
fn http2_is_spoken_with_and_without_tls() {
    let (address, certificate) = servers::tls();
    let plain = url(servers::http2());
    let address = address.to_string();
    let secure = ["--connect", &address, "https://lb.test/"];
    let http2 = ["--http", "2", "-c", "2"];
    for arguments in [
        [&http2[..], &["--streams", "8", &plain]].concat(),
        [&http2[..], &["--no-keepalive", &plain]].concat(),
        [&http2[..], &["-b", "body", "--insecure"], &secure].concat(),
        [&["--insecure"][..], &secure].concat(),
        [&["--insecure", "--no-keepalive"][..], &secure].concat(),
    ] {
        let (result, _) = result(&[&SHORT[..], &arguments].concat());
        assert!(count(&result, "requests") > 0, "{arguments:?}: {result:#}");
        assert_eq!(
            result["status"]["200"], result["requests"],
            "{arguments:?}: {result:#}"
        );
        assert_eq!(count(&result, "errors"), 0, "{arguments:?}: {result:#}");
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    fs::write(&file, certificate).unwrap();
    let mut trusting = tool(&[&SHORT[..], &secure].concat());
    assert!(
        trusting
            .env("SSL_CERT_FILE", &file)
            .output()
            .unwrap()
            .status
            .success()
    );
    let mut other_name = tool(&["--connect", &address, "https://other.test/"]);
    let text = refusal(other_name.env("SSL_CERT_FILE", &file));
    assert!(
        text.contains("is not valid for other.test") && text.contains("--insecure"),
        "{text}"
    );
    let text = refusal(&mut tool(&secure));
    assert!(
        text.contains("unknown authority") && text.contains("SSL_CERT_FILE"),
        "{text}"
    );
}

#[test]
fn echoes_are_checked() {
    let tcp = servers::tcp_echo(false).to_string();
    let udp = servers::udp_echo(Echoes::Right).to_string();
    let twice = servers::udp_echo(Echoes::Twice).to_string();
    for arguments in [
        ["--tcp", "--size=64", &tcp],
        ["--tcp", "--size=1000000", &tcp],
        ["--tcp", "--no-keepalive", &tcp],
        ["--udp", "--size=1", &udp],
        ["--udp", "--size=9000", &udp],
        ["--udp", "--no-keepalive", &udp],
        ["--udp", "--size=1400", &twice],
    ] {
        // One socket: a busy server loses datagrams of several.
        let (result, _) = result(&[&SHORT[..], &["-c", "1"], &arguments].concat());
        assert!(count(&result, "requests") > 0, "{arguments:?}: {result:#}");
        assert_eq!(count(&result, "errors"), 0, "{arguments:?}: {result:#}");
    }
    let tcp = servers::tcp_echo(true).to_string();
    let udp = servers::udp_echo(Echoes::Wrong).to_string();
    for arguments in [["--tcp", &tcp], ["--udp", &udp]] {
        let (result, _) = result(&[&SHORT[..], &arguments].concat());
        assert!(count(&result, "errors") > 0, "{arguments:?}: {result:#}");
        assert_eq!(
            result["errors_by_kind"]["corrupt"], result["errors"],
            "{arguments:?}: {result:#}"
        );
    }
    let lossy = servers::udp_echo(Echoes::LosesFirst).to_string();
    let (result, _) = result(&[&SHORT[..], &["-c", "1", "--timeout", "20ms", "--udp", &lossy]].concat());
    assert_eq!(result["errors_by_kind"]["timeout"], 1, "{result:#}");
}

#[test]
fn a_load_that_cannot_be_sent_says_why_and_what_to_do() {
    let closed = closed().to_string();
    let (closed_url, greeting) = (
        format!("http://{closed}/"),
        format!("https://{}/", servers::greeting()),
    );
    for (arguments, expected) in [
        (&["localhost:80"][..], "bad URL \"localhost:80\""),
        (&["--tcp", "http://a:1/"], "a scheme; write it as HOST:PORT"),
        (
            &[&closed_url],
            "nothing listens there; start the server, or correct the URL or --connect",
        ),
        (&["--insecure", &greeting], "does not speak TLS: use http://"),
        (
            &["http://a/", "http://b/", "-c", "1"],
            "2 URLs need as many connections: raise -c",
        ),
        (
            &["--assert", "q99<1ms", &closed_url],
            "unknown name \"q99\": there are p50",
        ),
        (
            &["--assert", "p99<10", &closed_url],
            "a time with its unit, such as 10ms",
        ),
        (
            &["--assert", "errors", &closed_url],
            "has no comparison: write it as 'p99<10ms'",
        ),
        (&["--rate", "0", &closed_url], "a rate is above 0"),
        (&["-H", "x", &closed_url], "write it as 'NAME: VALUE'"),
        (&["--streams", "2", &closed_url], "add --http 2"),
        (
            &["--body-file", "/nowhere", &closed_url],
            "cannot read the body /nowhere",
        ),
        (
            &["http://no-such-host.invalid/"],
            "cannot resolve no-such-host.invalid",
        ),
        (&[], "URL"),
    ] {
        let text = refusal(&mut tool(arguments));
        assert!(text.contains(expected), "{arguments:?}: {text}");
    }
    let limited = format!(
        "ulimit -n 200; exec {} -c 1000 {closed_url}",
        env!("CARGO_BIN_EXE_lb-bench")
    );
    let text = refusal(Command::new("sh").args(["-c", &limited]));
    assert!(
        text.contains("1000 connections need") && text.contains("may have 200: raise the hard limit"),
        "{text}"
    );
}

/// The number of latencies in a histogram of the log.
fn latencies(line: &str) -> i64 {
    let encoded = STANDARD.decode(line.rsplit(',').next().unwrap()).unwrap();
    let mut bytes = Vec::new();
    flate2::read::ZlibDecoder::new(&encoded[8..])
        .read_to_end(&mut bytes)
        .unwrap();
    let (mut sum, mut word, mut shift) = (0, 0_u64, 0);
    for byte in &bytes[40..] {
        word |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            let value = i64::try_from(word >> 1).unwrap();
            // An odd word is a number of zeros.
            sum += if word & 1 == 0 { value } else { 0 };
            (word, shift) = (0, 0);
        }
    }
    sum
}

#[test]
fn the_log_has_every_latency_second_by_second() {
    let server = url(servers::http(OK));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("load.hlog");
    let name = file.to_str().unwrap();
    let (result, _) = result(&[
        "-w", "0s", "-d", "1500ms", "--rate", "200", "--hdr", name, &server,
    ]);
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with(char::is_numeric))
        .collect();
    assert!(lines.len() >= 2, "{text}");
    let logged: i64 = lines.iter().map(|line| latencies(line)).sum();
    assert_eq!(logged, 300);
    assert_eq!(count(&result, "requests"), 300);
}

#[test]
fn the_self_test_names_the_limit() {
    let output = output(&["--self-test", "-d", "600ms", "-c", "4"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && text.contains("of CPU a request"),
        "{text}"
    );
    assert_eq!(text.matches("open loop at").count(), 5, "{text}");
}

#[test]
fn the_report_for_people_has_every_figure() {
    let server = url(servers::http(OK));
    let output = output(&[&SHORT[..], &["--rate", "500", "--assert", "p99<1ns", &server]].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    for expected in [
        "open loop, 500 requests/s",
        "p99.99 ",
        "max ",
        "status 200   50",
        "late starts",
        "not sent     0",
        "failed: p99<1ns, measured ",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

//! `option httpchk` and `http-check` as a check of kind `http`.

use std::rc::Rc;

use lb_model::{config::values, health::settings::HttpCheck, number};
use regex::Regex;

use crate::statement::Statement;

/// Statuses of answers.
const STATUSES: std::ops::RangeInclusive<u16> = 100..=599;
/// Statuses that HAProxy takes for success where nothing else is said.
const GOOD: std::ops::RangeInclusive<u16> = 200..=399;

/// Reads the option and its rules. `port` is the port of the check.
pub(super) fn read(
    option: &Statement,
    rules: &[Rc<Statement>],
    check: &mut HttpCheck,
    port: &mut Option<u16>,
) {
    check.expect_status = GOOD.collect();
    request(option, check);
    let mut sent = false;
    let mut expected = false;
    for rule in rules {
        match rule.word(1) {
            "send" if !sent => {
                sent = true;
                send(rule, check);
            }
            "expect" if !expected => {
                expected = true;
                expect(rule, check);
            }
            "connect" if !sent => connect(rule, port),
            "send" | "expect" | "connect" => {
                rule.lose_all("a check makes one request; further ones are [[service.health.also]]");
            }
            "comment" => rule.lose_all("it has no meaning for lb"),
            "disable-on-404" => {
                rule.lose_all("an agent ([service.agent]) or lb backend drain takes a backend out softly");
            }
            "send-state" => rule.lose_all("the server is not told its state"),
            "set-var" | "unset-var" | "set-var-fmt" => rule.lose_all("checks have no variables"),
            _ => {}
        }
    }
}

/// `option httpchk [METHOD] [URI] [VERSION and headers]`.
fn request(option: &Statement, check: &mut HttpCheck) {
    let words = option.rest(2);
    "OPTIONS".clone_into(&mut check.method);
    let version = match words {
        [] => "",
        [path] => {
            path.clone_into(&mut check.path);
            ""
        }
        [method, path, rest @ ..] => {
            method.clone_into(&mut check.method);
            path.clone_into(&mut check.path);
            rest.first().map_or("", String::as_str)
        }
    };
    for line in version.split("\r\n").flat_map(|line| line.split('\n')).skip(1) {
        if let Some((name, value)) = line.split_once(':') {
            header(check, name.trim(), value.trim());
        }
    }
    option.map(0..5);
}

fn header(check: &mut HttpCheck, name: &str, value: &str) {
    if name.eq_ignore_ascii_case("host") {
        check.host = Some(value.to_owned());
    } else if !name.is_empty() && !name.eq_ignore_ascii_case("connection") {
        check.headers.push((name.to_owned(), value.to_owned()));
    }
}

/// `http-check send [meth M] [uri U] [ver V] [hdr NAME VALUE]… [body B]`.
fn send(rule: &Statement, check: &mut HttpCheck) {
    rule.map(0..2);
    let mut at = 2;
    while at < rule.words.len() {
        let value = rule.word(at + 1);
        let used = match rule.word(at) {
            "meth" => {
                value.clone_into(&mut check.method);
                2
            }
            "uri" => {
                value.clone_into(&mut check.path);
                2
            }
            "ver" => 2,
            "hdr" if value.contains('%') || rule.word(at + 2).contains("%[") => {
                rule.lose(at..at + 3, "headers of checks are fixed texts");
                3
            }
            "hdr" => {
                header(check, value, rule.word(at + 2));
                3
            }
            "body" | "body-lf" | "uri-lf" => {
                rule.lose(at..at + 2, "requests of checks have a fixed path and no body");
                2
            }
            "comment" => 2,
            _ => {
                at += 1;
                continue;
            }
        };
        rule.map(at..at + used);
        at += used;
    }
}

/// `http-check connect [port P] …`.
fn connect(rule: &Statement, port: &mut Option<u16>) {
    rule.map(0..2);
    let mut at = 2;
    while at < rule.words.len() {
        at += match (rule.word(at), number::decimal::<u16>(rule.word(at + 1))) {
            ("port", Some(port_number)) if port_number != 0 => {
                *port = Some(port_number);
                rule.map(at..at + 2);
                2
            }
            ("default" | "linger", _) => {
                rule.map(at..at + 1);
                1
            }
            ("comment", _) => {
                rule.map(at..at + 2);
                2
            }
            ("ssl" | "send-proxy" | "via-socks4", _) => {
                rule.lose(
                    at..at + 1,
                    "check-ssl and check-send-proxy of the server line decide",
                );
                1
            }
            ("sni" | "alpn" | "proto" | "addr" | "port", _) => {
                rule.lose(at..at + 2, "parameters of the server line decide");
                2
            }
            _ => 1,
        };
    }
}

/// `http-check expect [OPTIONS] [!] KIND PATTERN`.
fn expect(rule: &Statement, check: &mut HttpCheck) {
    rule.map(0..2);
    let mut at = skip_options(rule, 2);
    let negated = rule.word(at) == "!";
    if negated {
        at += 1;
    }
    let words = rule.rest(at);
    let [kind, pattern, ..] = words else { return };
    let end = at + 2;
    match (kind.as_str(), negated) {
        ("status", false) => match values::statuses(pattern) {
            Ok(ranges) => check.expect_status = ordered(ranges.into_iter().flatten()),
            Err(_) => return,
        },
        ("status", true) => match values::statuses(pattern) {
            Ok(ranges) => {
                let out: Vec<u16> = ranges.into_iter().flatten().collect();
                check.expect_status = STATUSES.filter(|status| !out.contains(status)).collect();
            }
            Err(_) => return,
        },
        ("rstatus", negated) => match Regex::new(pattern) {
            Ok(regex) => {
                let fits = |status: &u16| regex.is_match(&status.to_string()) != negated;
                check.expect_status = STATUSES.filter(fits).collect();
            }
            Err(_) => return,
        },
        ("string", false) => check.expect_body = Some(regex::escape(pattern)),
        ("rstring", false) => check.expect_body = Some(pattern.clone()),
        ("string" | "rstring" | "string-lf" | "fhdr" | "hdr", _) => {
            rule.lose_all("an answer must match: expect_body is an expression that the body has");
            return;
        }
        _ => return,
    }
    rule.map(2..end);
}

/// Words before the pattern of an expectation, which change nothing in the verdict.
pub(super) fn skip_options(rule: &Statement, mut at: usize) -> usize {
    loop {
        let used = match rule.word(at) {
            "min-recv" | "comment" | "ok-status" | "error-status" | "tout-status" | "on-success"
            | "on-error" | "status-code" => 2,
            _ => return at,
        };
        rule.map(at..at + used);
        at += used;
    }
}

fn ordered(statuses: impl Iterator<Item = u16>) -> Vec<u16> {
    let mut all: Vec<u16> = statuses.collect();
    all.sort_unstable();
    all.dedup();
    all
}

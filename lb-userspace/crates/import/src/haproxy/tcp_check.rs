//! `tcp-check` lines, and checks of protocols that HAProxy knows, as dialogues of kind `tcp`.

use std::rc::Rc;

use lb_model::{
    health::settings::{Bytes, CheckKind, DialogueStep, Expected, TcpDialogue, TlsCheck},
    number,
};

use super::http_check::skip_options;
use crate::statement::Statement;

/// The steps of a dialogue, and whether its connection uses TLS. `port` is the port of the check.
pub(super) fn read(rules: &[Rc<Statement>], port: &mut Option<u16>) -> (Vec<DialogueStep>, bool) {
    let mut steps: Vec<DialogueStep> = Vec::new();
    let mut by_tls = false;
    let mut is_over = false;
    for rule in rules {
        let text = rule.word(2);
        match rule.word(1) {
            _ if is_over => {
                rule.lose_all("a check makes one connection; further ones are [[service.health.also]]")
            }
            "connect" if steps.is_empty() => connect(rule, port, &mut by_tls),
            "connect" => {
                is_over = true;
                rule.lose_all("a check makes one connection; further ones are [[service.health.also]]");
            }
            "send" if !text.is_empty() => {
                steps.push(sends(Bytes::Text(text.to_owned())));
                sent(rule);
            }
            "send-binary" => match hex(text) {
                Some(bytes) => {
                    steps.push(sends(Bytes::Hex(bytes)));
                    sent(rule);
                }
                None => rule.lose_all("the bytes are not in hexadecimal"),
            },
            "send-lf" | "send-binary-lf" => {
                rule.lose_all("checks send fixed texts: send of [service.health]")
            }
            "expect" => expect(rule, &mut steps),
            "comment" => rule.lose_all("it has no meaning for lb"),
            "set-var" | "unset-var" | "set-var-fmt" => rule.lose_all("checks have no variables"),
            _ => {}
        }
    }
    (steps, by_tls)
}

fn sends(bytes: Bytes) -> DialogueStep {
    DialogueStep {
        send: Some(bytes),
        expect: None,
    }
}

fn sent(rule: &Statement) {
    rule.map(0..3);
    if rule.word(3) == "comment" {
        rule.map(3..5);
    }
}

fn connect(rule: &Statement, port: &mut Option<u16>, by_tls: &mut bool) {
    rule.map(0..2);
    let mut at = 2;
    while at < rule.words.len() {
        at += match (rule.word(at), number::decimal::<u16>(rule.word(at + 1))) {
            ("port", Some(port_number)) if port_number != 0 => {
                *port = Some(port_number);
                rule.map(at..at + 2);
                2
            }
            ("ssl", _) => {
                *by_tls = true;
                rule.map(at..at + 1);
                1
            }
            ("default" | "linger", _) => {
                rule.map(at..at + 1);
                1
            }
            ("comment", _) => {
                rule.map(at..at + 2);
                2
            }
            ("send-proxy" | "via-socks4", _) => {
                rule.lose(at..at + 1, "send_proxy of [service.health] sends a PROXY header");
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

/// `tcp-check expect [OPTIONS] [!] KIND PATTERN`.
fn expect(rule: &Statement, steps: &mut Vec<DialogueStep>) {
    rule.map(0..2);
    let at = skip_options(rule, 2);
    let [kind, pattern, ..] = rule.rest(at) else {
        return;
    };
    let expected = match kind.as_str() {
        "string" => Expected::Bytes(Bytes::Text(pattern.clone())),
        "rstring" => Expected::Regex(pattern.clone()),
        "binary" => match hex(pattern) {
            Some(bytes) => Expected::Bytes(Bytes::Hex(bytes)),
            None => {
                rule.lose_all("the bytes are not in hexadecimal");
                return;
            }
        },
        "!" | "rbinary" | "string-lf" | "binary-lf" | "custom" => {
            rule.lose_all("an answer must contain fixed text or bytes, or match expect_regex");
            return;
        }
        _ => return,
    };
    rule.map(at..at + 2);
    match steps.last_mut() {
        Some(step) if step.expect.is_none() => step.expect = Some(expected),
        Some(_) | None => steps.push(DialogueStep {
            send: None,
            expect: Some(expected),
        }),
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    if text.is_empty() || !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    text.as_bytes().chunks(2).map(number::hexadecimal_byte).collect()
}

fn dialogue<const N: usize>(steps: [(Option<&str>, &str); N]) -> CheckKind {
    let steps = steps.map(|(send, expect)| DialogueStep {
        send: send.map(|text| Bytes::Text(text.to_owned())),
        expect: Some(Expected::Bytes(Bytes::Text(expect.to_owned()))),
    });
    CheckKind::Dialogue(TcpDialogue {
        steps: steps.to_vec(),
    })
}

/// The check of an option that knows a protocol; `None` where a connection alone is checked.
pub(super) fn known(option: &Statement) -> Option<CheckKind> {
    match option.word(1) {
        "smtpchk" => {
            let hello = match option.rest(2) {
                [hello, host, ..] => format!("{hello} {host}\r\n"),
                _ => "HELO localhost\r\n".to_owned(),
            };
            option.map(0..4);
            Some(dialogue([
                (None, "220"),
                (Some(&hello), "250"),
                (Some("QUIT\r\n"), "221"),
            ]))
        }
        "redis-check" => Some(dialogue([(Some("PING\r\n"), "+PONG")])),
        "ssl-hello-chk" => Some(CheckKind::Tls(TlsCheck {
            verify: false,
            ..TlsCheck::default()
        })),
        _ => {
            option.lose_all(
                "lb does not speak this protocol: a connection alone is checked; kind exec runs a program that does",
            );
            None
        }
    }
}

//! Health checks of a proxy as `[service.health]`.

use std::{rc::Rc, time::Duration};

use lb_model::health::settings::{
    CheckKind, CheckSettings, ExecCheck, HttpCheck, ProxyVersion, TcpDialogue, TlsCheck,
};

use super::{http_check, profile::Profile, server::Params, tcp_check};
use crate::statement::Statement;

/// How HAProxy checks where nothing else is said.
const INTER: Duration = Duration::from_secs(2);

/// The checks of a proxy with these servers. None if no server is checked.
pub(super) fn settings(profile: &Profile, servers: &[(Rc<Statement>, Params)]) -> CheckSettings {
    let Some((first, lead)) = servers.iter().find(|(_, params)| params.check) else {
        let lines = profile.check.iter().chain(&*profile.rules);
        lines.for_each(|line| {
            line.lose_all("no server is checked: check is missing on the server lines");
        });
        return CheckSettings::default();
    };
    differences(first, lead, servers);
    let defaults = CheckSettings::default();
    let interval = lead.inter.unwrap_or(INTER);
    let fast = lead.fast.unwrap_or(defaults.fast_interval);
    let down = lead.down.unwrap_or(defaults.down_interval_max);
    if lead.fast.is_some_and(|fast| fast > interval) {
        first.note("fastinter is longer than inter: fast_interval is the same as interval");
    }
    if lead.down.is_some_and(|down| down < interval) {
        first.note("downinter is shorter than inter: down_interval_max is the same as interval");
    }
    // HAProxy's `inter` is the time for all of a check, unless `timeout check` is set: then that is the time after the connection.
    let timeout = match profile.answer {
        Some(answer) => interval
            .min(profile.connect.unwrap_or(interval))
            .saturating_add(answer),
        None => interval,
    };
    let mut settings = CheckSettings {
        interval,
        fast_interval: fast.min(interval),
        down_interval_max: down.max(interval),
        timeout,
        rise: lead.rise.unwrap_or(defaults.rise),
        fall: lead.fall.unwrap_or(defaults.fall),
        port: lead.port,
        send_proxy: (lead.check_proxy && lead.proxy.is_none()).then_some(ProxyVersion::V1),
        ..defaults
    };
    settings.kind = kind(profile, lead, &mut settings.port);
    settings
}

/// Remarks of servers that HAProxy checks in another way than the first one.
fn differences(first: &Statement, lead: &Params, servers: &[(Rc<Statement>, Params)]) {
    let how = |params: &Params| {
        (
            params.inter,
            params.fast,
            params.down,
            params.rise,
            params.fall,
            params.port,
            params.checked_by_tls(),
        )
    };
    for (line, params) in servers {
        if !params.check {
            line.note("lb checks all backends of a service, this one too");
        } else if how(params) != how(lead) {
            line.note(format!(
                "lb checks all backends of a service alike: as server {}",
                first.word(1)
            ));
        }
    }
}

/// TLS of a check.
fn tls(lead: &Params) -> TlsCheck {
    TlsCheck {
        verify: lead.verify.unwrap_or(true),
        server_name: owned(&lead.server_name),
        ca_file: owned(&lead.ca_file),
        cert_file: owned(&lead.cert_file),
        key_file: owned(&lead.cert_file),
        ..TlsCheck::default()
    }
}

fn owned(text: &Option<Rc<str>>) -> Option<String> {
    text.as_deref().map(str::to_owned)
}

fn kind(profile: &Profile, lead: &Params, port: &mut Option<u16>) -> CheckKind {
    let by_tls = lead.checked_by_tls().then(|| tls(lead));
    let Some(option) = &profile.check else {
        unused(
            profile,
            "checks have no steps without option httpchk or tcp-check",
        );
        return plain(by_tls, lead);
    };
    let name = option.word(1);
    match name {
        "httpchk" => {
            let rules = rules(profile, "http-check");
            let mut check = HttpCheck {
                tls: by_tls,
                ..HttpCheck::default()
            };
            http_check::read(option, &rules, &mut check, port);
            if lead.http2 || lead.alpn.iter().any(|protocol| protocol == "h2") {
                CheckKind::Http2(check)
            } else {
                CheckKind::Http(check)
            }
        }
        "tcp-check" => {
            let rules = rules(profile, "tcp-check");
            let (steps, connects_by_tls) = tcp_check::read(&rules, port);
            let by_tls = by_tls.or_else(|| connects_by_tls.then(|| tls(lead)));
            match (by_tls, steps.is_empty()) {
                (by_tls, true) => plain(by_tls, lead),
                (Some(by_tls), false) => {
                    option.note("the dialogue is left out: a check by TLS ends with the handshake");
                    CheckKind::Tls(by_tls)
                }
                (None, false) => CheckKind::Dialogue(TcpDialogue { steps }),
            }
        }
        "external-check" => {
            unused(profile, "the program alone is the check");
            let Some(program) = &profile.program else {
                option.lose_all("external-check command is missing");
                return plain(by_tls, lead);
            };
            option.note("kind exec: the program gets LB_ADDRESS and LB_PORT, no arguments, no capabilities");
            CheckKind::Exec(ExecCheck {
                command: vec![program.to_string()],
            })
        }
        _ => {
            unused(profile, "the check has steps of its own");
            tcp_check::known(option).unwrap_or_else(|| plain(by_tls, lead))
        }
    }
}

/// A connection, or a handshake.
fn plain(by_tls: Option<TlsCheck>, lead: &Params) -> CheckKind {
    match by_tls {
        Some(check) => CheckKind::Tls(TlsCheck {
            alpn: lead.alpn.to_vec(),
            ..check
        }),
        None => CheckKind::Tcp,
    }
}

/// The rules of a kind; others get a remark.
fn rules(profile: &Profile, kind: &str) -> Vec<Rc<Statement>> {
    let (own, others): (Vec<_>, Vec<_>) = profile
        .rules
        .iter()
        .cloned()
        .partition(|rule| rule.word(0) == kind);
    for rule in others {
        rule.lose_all(format!(
            "checks are of another kind: option {} decides",
            kind.replace("http-check", "httpchk")
        ));
    }
    own
}

fn unused(profile: &Profile, why: &str) {
    for rule in &*profile.rules {
        if rule.is_untouched() {
            rule.lose_all(why);
        }
    }
}

//! Settings of a virtual server, and its real servers.

use std::{
    net::{IpAddr, SocketAddr},
    rc::Rc,
};

use lb_common::service::Mode;
use lb_model::{
    config::DEFAULT_WEIGHT,
    number,
    state::backend::{Admin, Backend},
};

use super::{
    check::{self, Checks, Common},
    tree::Node,
};
use crate::{
    draft::{Entry, ServiceDraft},
    ipvs_words::{Method, Scheduling, hash_flag, method, schedule},
    names::{self, Names},
    statement::Statement,
};

/// What a virtual server says, apart from its address.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// `lb_kind`.
    pub(super) method: Method,
    /// `lb_algo`, `persistence_timeout`, and flags of hashes.
    pub(super) scheduling: Scheduling,
    /// The protocol.
    pub(super) protocol: Wanted,
    /// `quorum`.
    pub(super) quorum: Option<u32>,
    /// `inhibit_on_failure` of the servers.
    pub(super) inhibits: bool,
    /// For all checks.
    pub(super) common: Common,
}

/// The protocol that a virtual server wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Wanted {
    /// It does not say.
    #[default]
    Unsaid,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// One that lb does not have.
    Other,
}

/// Reads the lines of a virtual server, but not its real servers.
pub(super) fn settings(node: &Node) -> Settings {
    let mut settings = Settings {
        // keepalived's default, unlike IPVS's own.
        method: Method::new(Mode::Dnat),
        ..Settings::default()
    };
    for child in &node.children {
        let line = &child.line;
        let value = line.word(1);
        let known = match line.word(0) {
            "lb_algo" | "lvs_sched" => {
                settings.scheduling.scheduler = Some(value.to_owned());
                line.map(0..1);
                schedule_words(line);
                continue;
            }
            "lb_kind" | "lvs_method" => match method(line, 1) {
                Some(method) => {
                    settings.method = method;
                    line.map(0..1);
                    continue;
                }
                None => false,
            },
            "protocol" => match value {
                "TCP" | "tcp" => {
                    settings.protocol = Wanted::Tcp;
                    true
                }
                "UDP" | "udp" => {
                    settings.protocol = Wanted::Udp;
                    true
                }
                _ => {
                    settings.protocol = Wanted::Other;
                    false
                }
            },
            // 0 turns it off in some versions; without a number it is on.
            "persistence_timeout" => {
                settings.scheduling.is_persistent = value != "0";
                true
            }
            flag if hash_flag(flag).is_some() => {
                settings.scheduling.by_port |= hash_flag(flag) == Some(true);
                true
            }
            "quorum" => set(&mut settings.quorum, number::decimal(value)),
            "inhibit_on_failure" => {
                settings.inhibits = is_on(value);
                true
            }
            _ => {
                settings.common.read(line);
                continue;
            }
        };
        if known {
            line.map(0..2);
        }
    }
    settings
}

/// Whether a flag is on, which may have a value.
fn is_on(value: &str) -> bool {
    !matches!(value, "off" | "false" | "no")
}

/// The scheduler's name; its meaning is read later, with the mode.
fn schedule_words(line: &Statement) {
    let name = line.word(1);
    match schedule(name).1 {
        None => line.map(1..2),
        Some(why) => line.lose(1..2, why),
    }
}

fn set<T>(to: &mut Option<T>, value: Option<T>) -> bool {
    let is_known = value.is_some();
    if is_known {
        *to = value;
    }
    is_known
}

/// A real server as it is read.
struct Real {
    address: SocketAddr,
    weight: Option<u16>,
    mode: Option<Mode>,
    checks: Checks,
    statements: Vec<Rc<Statement>>,
    /// Those of its checks.
    of_checks: Vec<Rc<Statement>>,
}

/// Adds the real servers and the sorry server to a service.
pub(super) fn add(draft: &mut ServiceDraft, node: &Node, settings: &mut Settings) {
    let mut reals: Vec<Real> = Vec::new();
    for child in node
        .children
        .iter()
        .filter(|child| child.keyword() == "real_server")
    {
        if let Some(real) = real(child, settings) {
            reals.push(real);
        }
    }
    checks(draft, &reals);
    let weighted = reals
        .iter()
        .any(|real| real.weight.is_some_and(|weight| weight != 1));
    if weighted && settings.quorum.take().is_some() {
        let lines = node.children.iter().filter(|child| child.keyword() == "quorum");
        lines.for_each(|child| {
            child.line.lose_all(
                "backup_below counts backends, and the quorum counts their weight: set how many others must be up",
            );
        });
    }
    let mut names = Names::default();
    for real in reals {
        let weight = match real.weight {
            Some(weight) if weighted => weight,
            None if weighted => 1,
            Some(_) | None => DEFAULT_WEIGHT,
        };
        push(draft, &mut names, &real, weight, false);
    }
    sorry(draft, node, settings, &mut names);
}

/// Checks of the first server that has any; others get a remark where theirs differ.
fn checks(draft: &mut ServiceDraft, reals: &[Real]) {
    let Some(lead) = reals.iter().find(|real| real.checks.is_some()) else {
        return;
    };
    draft.service.health = lead.checks.settings();
    for real in reals {
        let Some(line) = real.statements.first() else {
            continue;
        };
        if !real.checks.is_some() {
            line.note("lb checks all backends of a service, this one too");
        } else if real.checks != lead.checks {
            for line in [line].into_iter().chain(&real.of_checks) {
                line.note(format!(
                    "lb checks all backends of a service alike: as {}",
                    lead.address
                ));
            }
        }
    }
    draft.checks = reals.iter().flat_map(|real| &real.of_checks).cloned().collect();
}

fn push(draft: &mut ServiceDraft, names: &mut Names, real: &Real, weight: u16, backup: bool) {
    let key = draft.service.key;
    let mode = real.mode.unwrap_or(draft.service.mode);
    let mut address = real.address;
    if address.port() == 0 && key.port != 0 {
        address.set_port(key.port);
    }
    if key.port == 0 && mode == Mode::Dnat {
        address.set_port(0);
    }
    let line = real.statements.first();
    if draft.has_backend_at(address) {
        if let Some(line) = line {
            line.note("not imported: another server of the service has this address");
        }
        return;
    }
    let wanted = names::of_address(address.ip());
    let Some(name) = names.unique(&wanted) else { return };
    let entry = Entry::Backend(Backend {
        name,
        address,
        weight,
        mode: real.mode,
        server_ids: Vec::new(),
        agent_port: None,
        backup,
        group: None,
        admin: Admin::Enabled,
        drain_until: None,
        discovered_by: None,
    });
    draft.push(entry, real.statements.clone());
}

/// Address and port of a server line.
fn address(line: &Statement) -> Option<SocketAddr> {
    let ip: IpAddr = line.word(1).parse().ok()?;
    let (port, words) = match line.word(2) {
        "" => (0, 2),
        port => (number::decimal(port)?, 3),
    };
    line.map(0..words);
    Some(SocketAddr::new(ip, port))
}

fn real(node: &Node, settings: &mut Settings) -> Option<Real> {
    let Some(address) = address(&node.line) else {
        node.lose("not imported: it has no IP address and port that lb import can read");
        return None;
    };
    let mut common = settings.common.clone();
    let mut real = Real {
        address,
        weight: None,
        mode: None,
        checks: Checks::default(),
        statements: node.statements(),
        of_checks: Vec::new(),
    };
    for child in &node.children {
        let line = &child.line;
        match line.word(0) {
            "weight" => {
                if let Some(weight) = number::decimal(line.word(1)) {
                    real.weight = Some(weight);
                    line.map(0..2);
                }
            }
            "inhibit_on_failure" => {
                settings.inhibits |= is_on(line.word(1));
                line.map_all();
            }
            "lvs_method" | "lb_kind" => {
                if let Some(method) = method(line, 1) {
                    real.mode = Some(method.mode);
                    line.map(0..1);
                }
            }
            _ => {
                common.read(line);
            }
        }
    }
    real.checks = Checks::new(&common);
    for child in node.children.iter().filter(|child| check::is_check(child)) {
        real.checks.read(child, &common);
        real.of_checks.extend(child.statements());
    }
    check::explain(node);
    Some(real)
}

/// `sorry_server` is a backup. A quorum says below how many others it is used.
fn sorry(draft: &mut ServiceDraft, node: &Node, settings: &Settings, names: &mut Names) {
    let line = node
        .children
        .iter()
        .find(|child| child.keyword() == "sorry_server");
    let quorum = node.children.iter().find(|child| child.keyword() == "quorum");
    let Some(line) = line.map(|child| &child.line) else {
        if let Some(quorum) = quorum.filter(|_| settings.quorum.is_some()) {
            quorum.line.lose_all(
                "without a sorry_server nothing changes below the quorum: backends that are up take flows",
            );
        }
        return;
    };
    let Some(address) = address(line) else {
        line.lose_all("not imported: it has no IP address and port that lb import can read");
        return;
    };
    let mut statements = vec![Rc::clone(line)];
    let own = node
        .children
        .iter()
        .find(|child| child.keyword() == "sorry_server_lvs_method");
    let mode = own.and_then(|child| {
        let method = method(&child.line, 1)?;
        child.line.map(0..1);
        Some(method.mode)
    });
    statements.extend(own.map(|child| Rc::clone(&child.line)));
    if let Some(count) = settings.quorum.filter(|count| *count > 1) {
        draft.service.backup_below = count;
        if let Some(quorum) = quorum {
            quorum
                .line
                .note("below the quorum backends that are up stay in use, beside the backup");
        }
    }
    let real = Real {
        address,
        weight: None,
        mode,
        checks: Checks::default(),
        statements,
        of_checks: Vec::new(),
    };
    push(draft, names, &real, DEFAULT_WEIGHT, true);
}

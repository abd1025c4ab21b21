//! Conditions on the addresses of clients as `[service.guard]`: what HAProxy refuses must not be let in.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    rc::Rc,
};

use lb_common::limits::MAX_GUARD_PREFIXES;
use lb_model::{
    number,
    state::guard::{Guard, Prefix},
};

use super::{reasons, sections::Section};
use crate::statement::Statement;

/// Most pairs of prefixes that are compared.
const MAX_PAIRS: usize = 1_000_000;

/// Prefixes of an `acl`, with its lines.
#[derive(Default)]
struct Acl<'a> {
    prefixes: Vec<Prefix>,
    lines: Vec<&'a Rc<Statement>>,
    /// Whether it has conditions other than addresses of clients.
    is_other: bool,
}

/// What a rule does with clients of its prefixes.
enum Rule<'a> {
    /// `reject if …`
    Refuse(Vec<Prefix>, Vec<&'a Rc<Statement>>),
    /// `reject unless …`
    RefuseOthers(Vec<Prefix>, Vec<&'a Rc<Statement>>),
    /// `accept if …`, before a `reject` of all.
    Accept(Vec<Prefix>, Vec<&'a Rc<Statement>>),
    /// `reject`
    RefuseAll,
}

/// The guard of a proxy by its rules on addresses of clients. Gives every rule and `acl` line its mapping or its remark.
pub(super) fn guard(section: &Section) -> Guard {
    let acls = acls(section);
    let lines: Vec<&Rc<Statement>> = section.lines().filter(|line| is_rule(line)).collect();
    let mut guard = Guard::default();
    // Rules are read in order, and one that accepts ends them: so prefixes mean what they say only up to the first other rule.
    let mut place = 0;
    while let Some(line) = lines.get(place).copied() {
        let mut used = vec![line];
        let (prefixes, acls_used, refuses) = match rule(line, &acls) {
            Some(Rule::Refuse(prefixes, acls)) => (prefixes, acls, true),
            Some(Rule::RefuseOthers(prefixes, acls)) if guard.allow.is_empty() => (prefixes, acls, false),
            Some(Rule::Accept(prefixes, acls)) if guard.allow.is_empty() => {
                let last = lines.get(place + 1).copied();
                let Some(last) = last.filter(|last| refuses_all(last) && last.words[..2] == line.words[..2])
                else {
                    break;
                };
                used.push(last);
                (prefixes, acls, false)
            }
            Some(Rule::RefuseOthers(..) | Rule::Accept(..) | Rule::RefuseAll) | None => break,
        };
        let sound = if refuses {
            guard.deny.len() + prefixes.len() <= MAX_GUARD_PREFIXES as usize
                && !lets_in(&guard.allow, &prefixes)
        } else {
            !lets_in(&prefixes, &guard.deny)
        };
        if !sound {
            break;
        }
        if refuses {
            guard.deny.extend(prefixes);
        } else {
            guard.allow = prefixes;
        }
        place += used.len();
        used.extend(acls_used);
        used.iter().for_each(|line| line.map_all());
    }
    for prefixes in [&mut guard.allow, &mut guard.deny] {
        let mut seen = HashSet::new();
        prefixes.retain(|prefix| seen.insert(*prefix));
    }
    guard
}

/// Whether a longer prefix would let in what a shorter one refuses: in HAProxy the first rule decides.
fn lets_in(allow: &[Prefix], deny: &[Prefix]) -> bool {
    let within = |allowed: &Prefix, denied: &Prefix| {
        denied.contains(allowed.address()) && allowed.length() > denied.length()
    };
    let pairs = allow.len().saturating_mul(deny.len());
    pairs > MAX_PAIRS
        || allow
            .iter()
            .any(|allowed| deny.iter().any(|denied| within(allowed, denied)))
}

/// Whether a line accepts or refuses clients.
fn is_rule(line: &Statement) -> bool {
    verdict(line).is_some()
}

/// Whether a rule accepts (`true`) or refuses, and where its condition begins.
fn verdict(line: &Statement) -> Option<(bool, usize)> {
    match (line.word(0), line.word(1), line.word(2)) {
        ("tcp-request", "connection" | "session" | "content", "accept") => Some((true, 3)),
        ("tcp-request", "connection" | "session" | "content", "reject") => Some((false, 3)),
        ("http-request", "allow", _) => Some((true, 2)),
        ("http-request", "deny" | "reject" | "tarpit", _) => Some((false, 2)),
        _ => None,
    }
}

fn refuses_all(line: &Statement) -> bool {
    verdict(line).is_some_and(|(accepts, at)| !accepts && line.words.len() == at)
}

fn rule<'a>(line: &Statement, acls: &HashMap<&str, Acl<'a>>) -> Option<Rule<'a>> {
    let (accepts, mut at) = verdict(line)?;
    if !accepts && line.word(at) == "deny_status" {
        at += 2;
    }
    let words: Vec<&str> = line.rest(at).iter().map(String::as_str).collect();
    let (is_unless, condition) = match words.as_slice() {
        [] if !accepts => return Some(Rule::RefuseAll),
        ["if", condition @ ..] => (false, condition),
        ["unless", condition @ ..] => (true, condition),
        _ => return None,
    };
    let (is_negated, condition) = match condition {
        ["!", rest @ ..] => (true, rest.to_vec()),
        [first, rest @ ..] => match first.strip_prefix('!') {
            Some(first) => (true, [&[first], rest].concat()),
            None => (false, condition.to_vec()),
        },
        [] => return None,
    };
    let (prefixes, used) = match condition.as_slice() {
        ["{", "src", values @ .., "}"] => (prefixes(values)?, Vec::new()),
        [name] => {
            let acl = acls.get(name).filter(|acl| !acl.is_other)?;
            (acl.prefixes.clone(), acl.lines.clone())
        }
        _ => return None,
    };
    Some(match (accepts, is_unless != is_negated) {
        (false, false) => Rule::Refuse(prefixes, used),
        (false, true) => Rule::RefuseOthers(prefixes, used),
        (true, false) => Rule::Accept(prefixes, used),
        (true, true) => return None,
    })
}

fn acls(section: &Section) -> HashMap<&str, Acl<'_>> {
    let mut acls: HashMap<&str, Acl<'_>> = HashMap::new();
    for line in section.lines().filter(|line| line.word(0) == "acl") {
        let acl = acls.entry(line.word(1)).or_default();
        let values: Vec<&str> = line.rest(3).iter().map(String::as_str).collect();
        match prefixes(&values) {
            Some(prefixes) if line.word(2) == "src" => acl.prefixes.extend(prefixes),
            Some(_) | None => acl.is_other = true,
        }
        acl.lines.push(line);
    }
    acls
}

/// Prefixes of addresses; `None` if a word is something else, or there is none.
fn prefixes(values: &[&str]) -> Option<Vec<Prefix>> {
    let prefix = |text: &&str| {
        let (address, length) = text.split_once('/').unwrap_or((text, ""));
        let address: IpAddr = address.parse().ok()?;
        let most = Prefix::most(address);
        let length = match length {
            "" => most,
            length => number::decimal(length).filter(|length| *length <= most)?,
        };
        Some(Prefix::around(address, length))
    };
    let all: Option<Vec<Prefix>> = values.iter().map(prefix).collect();
    all.filter(|all| !all.is_empty())
}

/// Remarks of rules and conditions that have no mapping.
pub(super) fn explain_rest(section: &Section) {
    for line in section.lines() {
        if is_rule(line) && line.is_untouched() {
            let accepts = verdict(line).is_some_and(|(accepts, _)| accepts);
            line.lose_all(if accepts {
                "lb reads no requests, so they all go on; allow and deny of [service.guard] are prefixes of clients"
            } else {
                "NOT refused by lb: allow and deny of [service.guard] are prefixes of clients, source_new_flows limits each client"
            });
        } else if line.word(0) == "acl" && line.is_untouched() {
            reasons::explain(line);
        }
    }
}

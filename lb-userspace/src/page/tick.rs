//! One look at the daemon as text, whole and as what differs from the look before.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Instant, SystemTime},
};

use hyper::body::Bytes;
use serde::Serialize;

use super::{
    access::own_name,
    rows::{
        BackendRow, Drop, EventRow, Flows, InterfaceRow, Node, ProblemRow, Problems, ServiceRow, Totals,
        endpoint, tenth,
    },
};
use crate::{
    api::{
        Api,
        rates::{Counters, Rates, all_drops, drop_rates, per_second},
        short_list::{self, Entry},
        snapshot::StatusSnapshot,
        types::{Backend, Drops, Health, Problem, Service, Status},
    },
    events::rfc3339,
    state::secrets::Secrets,
};

/// Events that a page has from before it was opened.
const EVENTS: usize = 50;
/// Entries of the list of problems; more are counted.
const PROBLEMS: usize = 100;

/// A text, and what of it is new since the look before.
pub(super) struct Text {
    whole: Bytes,
    news: Bytes,
}

impl Text {
    /// For a reader that has the look before, or not.
    pub(super) fn text(&self, follows: bool) -> Bytes {
        if follows {
            self.news.clone()
        } else {
            self.whole.clone()
        }
    }
}

/// A look at the daemon.
pub(super) struct Tick {
    /// One more than that of the look before, unless that failed.
    pub(super) number: u64,
    /// Everything but backends.
    pub(super) state: Text,
    /// Backends of the opened services.
    pub(super) backends: BTreeMap<String, Text>,
}

/// Rows by name as JSON, and what rates need of them.
type Rows<T> = BTreeMap<String, (String, T)>;

/// What a service counted.
struct OfService {
    counters: Counters,
    drops: Vec<Drops>,
}

/// The look before.
#[derive(Default)]
pub(super) struct Builder {
    number: u64,
    at: Option<Instant>,
    parts: BTreeMap<&'static str, String>,
    services: Rows<OfService>,
    backends: BTreeMap<String, Rows<Counters>>,
    interfaces: BTreeMap<String, u64>,
    /// Packets received, and dropped, on all interfaces.
    sums: Option<(u64, u64)>,
    drops: Option<Vec<Drops>>,
    events: VecDeque<String>,
    last_event: u64,
    secrets: Option<(u64, Secrets)>,
}

impl Builder {
    /// The next look, and itself for the one after it.
    pub(super) fn tick(
        mut self,
        api: &Api,
        snapshot: &StatusSnapshot,
        opened: &BTreeSet<String>,
    ) -> (Self, Tick) {
        let now = Instant::now();
        let seconds = self.at.map_or(0.0, |before| (now - before).as_secs_f64());
        let status = snapshot.status(api);
        let secrets = self.secrets(snapshot);
        let mut problems: Vec<Problem> = status.problems.clone();
        let (mut services, mut backends) = (Rows::new(), BTreeMap::new());
        let mut sum = (Rates::default(), 0);
        for service in snapshot.desired().services.values() {
            let service = snapshot.describe(service);
            let of_service = StatusSnapshot::problems_of(&service);
            let (row, of, rates) = self.service(&service, &of_service, seconds, &secrets);
            sum = (
                rates.map_or(sum.0, |rates| sum.0.plus(rates)),
                sum.1 + service.active_flows,
            );
            if opened.contains(&service.name) {
                backends.insert(
                    service.name.clone(),
                    self.backends(&service, &of_service, seconds, &secrets),
                );
            }
            services.insert(service.name.clone(), (row, of));
            problems.extend(of_service);
        }
        let mut parts = BTreeMap::new();
        parts.insert("node", json(&node(&status)));
        parts.insert("problems", json(&listed(&problems, &secrets)));
        parts.insert("interfaces", self.interfaces(&status, seconds));
        self.totals(&status, seconds, self.at.map(|_| sum.0), sum.1, &mut parts);
        let (all_events, new_events) = self.events(api, &secrets);

        let at = json(&rfc3339(SystemTime::now()));
        let number = self.number + 1;
        let head = |is_whole: bool| format!("{{\"number\":{number},\"at\":{at},\"whole\":{is_whole}");
        let mut whole = head(true);
        let mut news = head(false);
        for (name, text) in &parts {
            let field = format!(",\"{name}\":{text}");
            whole.push_str(&field);
            if self.parts.get(name) != Some(text) {
                news.push_str(&field);
            }
        }
        whole.push_str(&format!(",\"events\":[{all_events}]"));
        if !new_events.is_empty() {
            news.push_str(&format!(",\"events\":[{new_events}]"));
        }
        rows(&mut whole, None, &services);
        rows(&mut news, Some(&self.services), &services);
        let state = Text {
            whole: event("state", whole),
            news: event("state", news),
        };
        let texts = backends.iter().map(|(name, of)| {
            let before = self.backends.get(name);
            let head = |is_whole: bool| format!("{{\"service\":{},\"whole\":{is_whole}", json(name));
            let (mut whole, mut news) = (head(true), head(before.is_none()));
            rows(&mut whole, None, of);
            rows(&mut news, before, of);
            let text = Text {
                whole: event("backends", whole),
                news: event("backends", news),
            };
            (name.clone(), text)
        });
        let tick = Tick {
            number,
            state,
            backends: texts.collect(),
        };
        let next = Self {
            number,
            at: Some(now),
            parts,
            services,
            backends,
            ..self
        };
        (next, tick)
    }

    /// The credentials of the state; found again only when it changed.
    fn secrets(&mut self, snapshot: &StatusSnapshot) -> Secrets {
        let desired = snapshot.desired();
        let revision = desired.revision.0;
        let secrets = match self.secrets.take() {
            Some((known, secrets)) if known == revision => secrets,
            // Those of the state before stay hidden: its events are still listed.
            Some((_, before)) => Secrets::of(desired).and(before),
            None => Secrets::of(desired),
        };
        self.secrets = Some((revision, secrets.clone()));
        secrets
    }

    fn service(
        &self,
        service: &Service,
        problems: &[Problem],
        seconds: f64,
        secrets: &Secrets,
    ) -> (String, OfService, Option<Rates>) {
        let before = self.services.get(&service.name).map(|(_, of)| of);
        let counters = Counters::from(service);
        let rates = Rates::between(before.map(|of| of.counters), counters, seconds);
        let drops = drop_rates(before.map(|of| of.drops.as_slice()), &service.drops, seconds);
        let dropped = rates.map(|_| {
            drops
                .iter()
                .filter_map(|drop| drop.packets_per_second)
                .fold(0.0, |sum, rate| sum + rate)
        });
        let own = problems.iter().filter(|problem| problem.backend.is_none());
        let down_in_use = |backend: &&Backend| backend.health == Health::Down && backend.effective_weight > 0;
        let row = ServiceRow {
            name: &service.name,
            address: endpoint(service),
            mode: &service.mode,
            check: &service.check,
            state: &service.state,
            healthy: service.healthy_backends,
            down_in_use: service.backends.iter().filter(down_in_use).count(),
            total: service.backends.iter().filter(|backend| !backend.removed).count(),
            flows: service.active_flows,
            rates: rates.map(Flows::from),
            dropped: dropped.map(tenth),
            drops: drops.iter().map(Drop::from).collect(),
            problems: own
                .map(|problem| secrets.hide(&problem.message).into_owned())
                .collect(),
        };
        let of = OfService {
            counters,
            drops: service.drops.clone(),
        };
        (json(&row), of, rates)
    }

    fn backends(
        &self,
        service: &Service,
        problems: &[Problem],
        seconds: f64,
        secrets: &Secrets,
    ) -> Rows<Counters> {
        let before = self.backends.get(&service.name);
        let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for problem in problems {
            if let Some(backend) = &problem.backend {
                reasons.entry(backend).or_default().push(&problem.message);
            }
        }
        let row = |backend: &Backend| {
            // A removed one may have the name of one that is present.
            let key = format!("{} {}", backend.name, backend.address);
            let earlier = before
                .and_then(|rows| rows.get(&key))
                .map(|(_, counters)| *counters);
            let counters = Counters::from(backend);
            let found = reasons.get(backend.name.as_str()).filter(|_| !backend.removed);
            let reason = match found {
                Some(reasons) => reasons.join("; "),
                None => backend
                    .last_check
                    .as_ref()
                    .map(|check| check.detail.clone())
                    .unwrap_or_default(),
            };
            let row = BackendRow {
                key: &key,
                name: &backend.name,
                address: backend.address.to_string(),
                mode: &backend.mode,
                health: backend.health,
                admin: backend.admin,
                removed: backend.removed,
                backup: backend.backup,
                group: backend.group.as_deref(),
                weight: backend.weight,
                effective_weight: backend.effective_weight,
                reason: secrets.hide(&reason).into_owned(),
                since: backend.since.as_deref(),
                drain_until: backend.drain_until.as_deref(),
                latency_us: backend.last_check.as_ref().map(|check| check.latency_us),
                flows: backend.active_flows,
                rates: Rates::between(earlier, counters, seconds).map(Flows::from),
            };
            (key.clone(), (json(&row), counters))
        };
        service.backends.iter().map(row).collect()
    }

    fn interfaces(&mut self, status: &Status, seconds: f64) -> String {
        let rows = status.interfaces.iter().map(|interface| {
            let before = self.interfaces.get(&interface.name);
            let rate = before.and_then(|before| per_second(*before, interface.packets, seconds));
            InterfaceRow {
                name: &interface.name,
                link: &interface.link,
                xdp_mode: interface.xdp_mode,
                packets: interface.packets,
                dropped: interface.dropped,
                received: rate.map(tenth),
                note: interface.note.as_deref(),
            }
        });
        let rows: Vec<InterfaceRow<'_>> = rows.collect();
        let text = json(&rows);
        let counts = status.interfaces.iter();
        self.interfaces = counts
            .map(|interface| (interface.name.clone(), interface.packets))
            .collect();
        text
    }

    /// Totals and drops of everything.
    fn totals(
        &mut self,
        status: &Status,
        seconds: f64,
        rates: Option<Rates>,
        flows: u64,
        parts: &mut BTreeMap<&'static str, String>,
    ) {
        let of = status.interfaces.iter();
        let sums = of.fold((0, 0), |sum, interface| {
            (sum.0 + interface.packets, sum.1 + interface.dropped)
        });
        let rate = |before: Option<u64>, now| {
            before
                .and_then(|before| per_second(before, now, seconds))
                .map(tenth)
        };
        let totals = Totals {
            received: rate(self.sums.map(|sums| sums.0), sums.0),
            dropped: rate(self.sums.map(|sums| sums.1), sums.1),
            rates: rates.map(Flows::from),
            flows,
        };
        let drops = all_drops(status);
        let listed = drop_rates(self.drops.as_deref(), &drops, seconds);
        let listed: Vec<Drop<'_>> = listed.iter().map(Drop::from).collect();
        parts.insert("drops", json(&listed));
        parts.insert("totals", json(&totals));
        (self.sums, self.drops) = (Some(sums), Some(drops));
    }

    /// The latest events, and those since the look before.
    fn events(&mut self, api: &Api, secrets: &Secrets) -> (String, String) {
        let new = api.events.list(self.last_event, None);
        let texts = new.iter().rev().take(EVENTS).rev().map(|event| {
            json(&EventRow {
                number: event.seq,
                at: &event.at,
                kind: event.kind,
                service: event.service.as_deref(),
                backend: event.backend.as_deref(),
                message: secrets.hide(&event.message).into_owned(),
                by: event.by.as_ref().map(|by| by.user.as_str()),
            })
        });
        let texts: Vec<String> = texts.collect();
        let news = texts.join(",");
        self.events.extend(texts);
        let surplus = self.events.len().saturating_sub(EVENTS);
        self.events.drain(..surplus);
        self.last_event = new.last().map_or(self.last_event, |event| event.seq);
        let all: Vec<&str> = self.events.iter().map(String::as_str).collect();
        (all.join(","), news)
    }
}

fn node(status: &Status) -> Node<'_> {
    Node {
        host: own_name(),
        version: &status.version,
        pid: status.pid,
        started: &status.started,
        revision: status.revision,
        ready: status.ready,
        file: status.config.file.is_some(),
        in_force: status.config.in_force,
        file_in_force: status.config.file_in_force,
        by_command: status.config.by_command.len(),
        pending: status.config.pending.len(),
    }
}

fn listed(problems: &[Problem], secrets: &Secrets) -> Problems {
    let entries = short_list::entries(problems);
    let rows = entries.iter().take(PROBLEMS).map(|entry| match entry {
        Entry::Problem(problem) => ProblemRow {
            service: problem.service.clone(),
            backend: problem.backend.clone(),
            message: secrets.hide(&problem.message).into_owned(),
            hint: problem.hint.as_ref().map(|hint| secrets.hide(hint).into_owned()),
        },
        Entry::More { service, backends } => ProblemRow {
            service: Some((*service).to_owned()),
            backend: None,
            message: format!("{}: open the service to see them", Entry::more(*backends)),
            hint: Some(format!("lb backend list {service}")),
        },
    });
    Problems {
        total: problems.len(),
        left_out: entries.len().saturating_sub(PROBLEMS),
        listed: rows.collect(),
    }
}

/// Ends an object: rows that differ from those before, and the names of rows that are gone.
fn rows<T>(text: &mut String, before: Option<&Rows<T>>, now: &Rows<T>) {
    let known = |name: &String| before.and_then(|before| before.get(name)).map(|(row, _)| row);
    let new = now.iter().filter(|(name, (row, _))| known(name) != Some(row));
    let new: Vec<&str> = new.map(|(_, (row, _))| row.as_str()).collect();
    text.push_str(&format!(",\"rows\":[{}]", new.join(",")));
    let gone = before
        .into_iter()
        .flat_map(BTreeMap::keys)
        .filter(|name| !now.contains_key(*name));
    let gone: Vec<&String> = gone.collect();
    if !gone.is_empty() {
        text.push_str(&format!(",\"gone\":{}", json(&gone)));
    }
    text.push('}');
}

/// A server-sent event. JSON has no line ends.
fn event(name: &str, data: String) -> Bytes {
    format!("event: {name}\ndata: {data}\n\n").into()
}

/// Our rows are always JSON: they have neither maps with other keys than texts nor numbers that JSON lacks.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}

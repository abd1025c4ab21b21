//! Services from HAProxy's frontends, `listen` sections and backends.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    rc::Rc,
};

use lb_model::state::{
    guard::{Guard, Prefix, Rate},
    service::{Affinity, Algorithm, Protocol, Service, ServiceKey},
};

use super::{
    acl, backends,
    bind::{self, Bound},
    profile::Profile,
    reasons,
    sections::{self, Section, SectionKind},
};
use crate::{
    draft::{Draft, ServiceDraft, TOO_MUCH},
    error::ImportError,
    statement::Statement,
};

/// First words of lines of `defaults` that are read for each service.
const USED_BY_SERVICES: [&str; 5] = [
    "balance",
    "http-check",
    "tcp-check",
    "default_backend",
    "use_backend",
];

/// What a service of a proxy in mode `http` means.
const OF_HTTP: &str = "It was mode http. lb forwards TCP connections: all requests of a connection go to one backend, and no header \
    is read, added or changed.";

/// Reads a configuration of HAProxy.
///
/// # Errors
/// It breaks the rules of its format.
pub(crate) fn import(file: &Rc<str>, text: &str, draft: &mut Draft) -> Result<(), ImportError> {
    let sections = sections::read(file, text)?;
    draft.statements = sections
        .iter()
        .flat_map(|section| section.statements.iter().cloned())
        .collect();
    let mut import = Import {
        profiles: profiles(&sections),
        targets: sections
            .iter()
            .enumerate()
            .filter(|(_, section)| matches!(section.kind, SectionKind::Backend | SectionKind::Listen))
            .map(|(index, section)| (section.name.as_str(), index))
            .collect(),
        used: HashSet::new(),
        sections: &sections,
        draft,
    };
    for (index, section) in sections.iter().enumerate() {
        match section.kind {
            SectionKind::Frontend | SectionKind::Listen => import.proxy(index, section),
            SectionKind::Global => section.statements.iter().for_each(|line| reasons::explain(line)),
            SectionKind::Other => {
                if let Some(reason) =
                    reasons::section(section.statements.first().map_or("", |line| line.word(0)))
                {
                    section.lose(reason);
                }
            }
            SectionKind::Defaults | SectionKind::Backend => {}
        }
    }
    import.finish();
    Ok(())
}

/// Settings of each section, by its place; empty for those that are no proxies.
fn profiles(sections: &[Section]) -> Vec<Profile> {
    let mut named: HashMap<&str, Profile> = HashMap::new();
    let mut last = Profile::default();
    let mut all = Vec::new();
    for section in sections {
        let from = section.from.as_deref().and_then(|from| named.get(from));
        if section.from.is_some()
            && from.is_none()
            && let Some(line) = section.statements.first()
        {
            line.note("no defaults section before it has this name");
        }
        let profile = match section.kind {
            SectionKind::Defaults => {
                // Each begins anew, but for what it names.
                let mut profile = from.map(Profile::inherited).unwrap_or_default();
                section.lines().for_each(|line| profile.read_default(line));
                named.insert(&section.name, profile.clone());
                last = profile.clone();
                profile
            }
            SectionKind::Frontend | SectionKind::Backend | SectionKind::Listen => {
                from.unwrap_or(&last).inherited()
            }
            SectionKind::Global | SectionKind::Other => Profile::default(),
        };
        all.push(profile);
    }
    all
}

struct Import<'a> {
    sections: &'a [Section],
    /// Settings of each section; those of proxies are read when they are imported.
    profiles: Vec<Profile>,
    /// Sections with servers, by name.
    targets: HashMap<&'a str, usize>,
    /// Sections of which something was imported.
    used: HashSet<usize>,
    draft: &'a mut Draft,
}

impl Import<'_> {
    /// Imports a frontend or a `listen` section.
    fn proxy(&mut self, index: usize, section: &Section) {
        let mut profile = std::mem::take(&mut self.profiles[index]);
        let guard = acl::guard(section);
        let is_bind = |line: &&Rc<Statement>| line.word(0) == "bind";
        for line in section.lines() {
            if is_bind(&line) || backends::is_server(line) {
                continue;
            }
            profile.read(line);
        }
        self.profiles[index] = profile.clone();
        if profile.is_disabled {
            section.lose("the section is disabled");
            return;
        }
        let Some(target) = self.target(index, section, &profile) else {
            return;
        };
        let bound = bind::read(section.lines().filter(is_bind), &self.draft.addresses);
        if bound.is_empty() {
            section.lose("not imported: it has no bind line with an address that lb can serve");
            return;
        }
        let servers_of = &self.sections[target];
        if target != index && !self.used.contains(&target) {
            let mut of_backend = std::mem::take(&mut self.profiles[target]);
            for line in servers_of.lines().filter(|line| !backends::is_server(line)) {
                of_backend.read(line);
            }
            self.profiles[target] = of_backend;
        }
        self.used.extend([index, target]);
        let backend_profile = self.profiles[target].clone();
        for (number, bound) in bound.iter().enumerate() {
            self.service(
                section,
                servers_of,
                &profile,
                &backend_profile,
                &guard,
                bound,
                number > 0,
            );
        }
        self.explain(section);
        if target != index {
            self.explain(servers_of);
        }
    }

    /// The section with the servers of a proxy; a remark on all of its lines if it is missing.
    fn target(&mut self, index: usize, section: &Section, profile: &Profile) -> Option<usize> {
        if section.kind == SectionKind::Listen && section.lines().any(|line| backends::is_server(line)) {
            return Some(index);
        }
        let Some(line) = &profile.target else {
            let routes = section.lines().any(|line| line.word(0) == "use_backend");
            section.lose(if routes {
                "not imported: each of its backends is chosen by conditions on requests, which lb does not read; keep HAProxy \
                 behind lb for it, or give each backend an address of its own"
            } else {
                "not imported: it has no servers, so HAProxy answers itself"
            });
            return None;
        };
        let name = line.word(1);
        let Some(target) = self.targets.get(name).copied() else {
            section.lose(&format!(
                "not imported: there is no backend {name} that is chosen without a condition"
            ));
            return None;
        };
        line.map_all();
        let servers = &self.sections[target];
        if !self.draft.may_read(servers.statements.len()) {
            section.lose(TOO_MUCH);
            return None;
        }
        let is_disabled = |line: &Rc<Statement>| line.words.len() == 1 && line.word(0) == "disabled";
        if servers.lines().any(is_disabled) {
            section.lose(&format!("not imported: backend {name} is disabled"));
            return None;
        }
        if !servers.lines().any(|line| backends::is_server(line)) {
            section.lose(&format!("not imported: backend {name} has no servers"));
            return None;
        }
        Some(target)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "a service is made of two sections and an address"
    )]
    fn service(
        &mut self,
        front: &Section,
        back: &Section,
        profile: &Profile,
        of_backend: &Profile,
        guard: &Guard,
        bound: &Bound,
        is_further: bool,
    ) {
        let Some(name) = self.draft.names.unique(&front.name) else {
            return;
        };
        let first = bound.ports.first().map_or(0, |range| range.first());
        let mut service = Service::new(name, ServiceKey::new(bound.address, first, Protocol::Tcp));
        if bound.ports.iter().map(|range| range.count()).sum::<usize>() > 1 {
            service.ports.clone_from(&bound.ports);
        }
        (service.algorithm, service.affinity) = balance(of_backend);
        service.guard = of_family(guard, bound.address);
        if let Some(sessions) = profile.sessions {
            service.guard.new_flows = Rate {
                per_second: sessions,
                burst: 0,
            };
        }
        let mut draft = ServiceDraft::new(service);
        let is_own = |line: &&Rc<Statement>| !backends::is_server(line);
        draft
            .statements
            .extend(front.statements.iter().filter(is_own).cloned());
        if !std::ptr::eq(front, back) {
            draft
                .statements
                .extend(back.statements.iter().filter(is_own).cloned());
        }
        if !is_further && (profile.is_http || of_backend.is_http) {
            draft.notes.push(OF_HTTP.to_owned());
        }
        if service_refuses_all(guard, &draft.service.guard) {
            front.lose("not imported: no client of this address family may send to it");
            return;
        }
        let lines = front.statements.len() + back.statements.len() + of_backend.rules.len();
        if !self.draft.may_read(lines) {
            front.lose(TOO_MUCH);
            return;
        }
        let servers = backends::servers(back, of_backend);
        backends::add(&mut draft, of_backend, &servers);
        if draft.entries.is_empty() {
            for line in &draft.statements {
                line.note("not imported: none of its servers can be");
            }
            return;
        }
        self.draft.push(draft);
    }

    /// Remarks of lines of an imported section that have no counterpart.
    fn explain(&self, section: &Section) {
        acl::explain_rest(section);
        for line in section.lines().filter(|line| !backends::is_server(line)) {
            if line.is_untouched() {
                reasons::explain(line);
            }
        }
    }

    /// Remarks of sections that no service was made of.
    fn finish(&self) {
        for (index, section) in self.sections.iter().enumerate() {
            if self.used.contains(&index) {
                continue;
            }
            match section.kind {
                SectionKind::Backend => {
                    section.lose("no imported frontend uses this backend without a condition")
                }
                SectionKind::Defaults => {
                    let of_services = |line: &&Rc<Statement>| {
                        let first = line.word(0);
                        line.is_open() && (USED_BY_SERVICES.contains(&first) || first == "option")
                    };
                    for line in section.lines().filter(of_services) {
                        line.lose_all("no imported service uses it");
                    }
                }
                SectionKind::Frontend | SectionKind::Listen | SectionKind::Global | SectionKind::Other => {}
            }
        }
    }
}

/// How HAProxy's algorithm is named.
fn balance(profile: &Profile) -> (Algorithm, Affinity) {
    let by_source = profile.sticks_to_source;
    let Some(line) = &profile.balance else {
        let affinity = if by_source {
            Affinity::Source
        } else {
            Affinity::None
        };
        return (Algorithm::Maglev, affinity);
    };
    let (algorithm, affinity) = match line.word(1) {
        "roundrobin" | "static-rr" => (Algorithm::RoundRobin, Affinity::None),
        "source" => (Algorithm::Maglev, Affinity::Source),
        "random" => (Algorithm::Maglev, Affinity::None),
        "leastconn" | "first" => {
            line.lose(
                1..2,
                "lb does not choose by the number of connections; new flows are spread evenly, by weight",
            );
            (Algorithm::RoundRobin, Affinity::None)
        }
        "uri" | "url_param" | "hdr" | "rdp-cookie" | "hash" => {
            line.lose(
                1..2,
                "lb reads no requests; new flows are spread evenly, by weight",
            );
            (Algorithm::Maglev, Affinity::None)
        }
        word if word.starts_with("hdr(")
            || word.starts_with("rdp-cookie(")
            || word.starts_with("random(") =>
        {
            line.lose(
                1..2,
                "lb reads no requests; new flows are spread evenly, by weight",
            );
            (Algorithm::Maglev, Affinity::None)
        }
        _ => return (Algorithm::Maglev, Affinity::None),
    };
    line.map(0..2);
    // Round robin would give each flow of a client another backend.
    if by_source {
        return (Algorithm::Maglev, Affinity::Source);
    }
    (algorithm, affinity)
}

/// The prefixes of a guard that clients of an address can be in.
fn of_family(guard: &Guard, address: IpAddr) -> Guard {
    let same = |prefixes: &[Prefix]| -> Vec<Prefix> {
        let fits = |prefix: &&Prefix| prefix.address().is_ipv4() == address.is_ipv4();
        prefixes.iter().filter(fits).copied().collect()
    };
    Guard {
        allow: same(&guard.allow),
        deny: same(&guard.deny),
        ..guard.clone()
    }
}

/// Whether a list of allowed clients became empty, which would mean everybody.
fn service_refuses_all(before: &Guard, after: &Guard) -> bool {
    !before.allow.is_empty() && after.allow.is_empty()
}

//! Services on the way from a source to a configuration file, each with the remarks that belong to it.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    rc::Rc,
};

use lb_common::{
    limits::{MAX_BACKENDS, MAX_SERVICES},
    service::Mode,
};
use lb_model::{
    health::settings::CheckSettings,
    state::{
        backend::Backend,
        check::{self, Place, Problem, ProblemKind},
        desired::Settings,
        hosts::HostBackend,
        names::BackendName,
        service::Service,
    },
};

use crate::{names::Names, statement::Statement};

/// Most lines that are read for services. Each service reads those of its servers again.
const MAX_READ: usize = 1 << 19;

/// Why a service is not imported beyond [`MAX_READ`].
pub(crate) const TOO_MUCH: &str = "not imported: more services and servers than lb import reads";

/// Backends, or addresses of a host name.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    /// At an address.
    Backend(Backend),
    /// By a host name.
    Host(HostBackend),
}

impl Entry {
    fn name(&self) -> &BackendName {
        match self {
            Self::Backend(backend) => &backend.name,
            Self::Host(host) => &host.name,
        }
    }
}

/// A backend with its statements.
#[derive(Clone, Debug)]
pub(crate) struct EntryDraft {
    /// The backend.
    pub(crate) entry: Entry,
    /// What it was made from.
    pub(crate) statements: Vec<Rc<Statement>>,
}

/// A service with its statements.
#[derive(Debug)]
pub(crate) struct ServiceDraft {
    /// Without backends.
    pub(crate) service: Service,
    /// What it was made from.
    pub(crate) statements: Vec<Rc<Statement>>,
    /// What its checks were made from.
    pub(crate) checks: Vec<Rc<Statement>>,
    /// What it means that no line of the source says alone.
    pub(crate) notes: Vec<String>,
    /// Its backends, in order.
    pub(crate) entries: Vec<EntryDraft>,
    /// Addresses of its backends.
    addresses: HashSet<SocketAddr>,
}

impl ServiceDraft {
    pub(crate) fn new(service: Service) -> Self {
        Self {
            service,
            statements: Vec::new(),
            checks: Vec::new(),
            notes: Vec::new(),
            entries: Vec::new(),
            addresses: HashSet::new(),
        }
    }

    /// Adds a backend.
    pub(crate) fn push(&mut self, entry: Entry, statements: Vec<Rc<Statement>>) {
        if let Entry::Backend(backend) = &entry {
            self.addresses.insert(backend.address);
        }
        self.entries.push(EntryDraft { entry, statements });
    }

    /// The service with its backends.
    pub(crate) fn whole(&self) -> Service {
        let mut service = self.service.clone();
        for draft in &self.entries {
            match &draft.entry {
                Entry::Backend(backend) => service.backends.push(backend.clone()),
                Entry::Host(host) => service.hosts.push(host.clone()),
            }
        }
        service
    }

    /// Statements of each backend, by its name.
    pub(crate) fn statements_by_name(&self) -> HashMap<&BackendName, &[Rc<Statement>]> {
        let entries = self.entries.iter();
        entries
            .map(|draft| (draft.entry.name(), draft.statements.as_slice()))
            .collect()
    }

    /// Whether a backend has this address.
    pub(crate) fn has_backend_at(&self, address: SocketAddr) -> bool {
        self.addresses.contains(&address)
    }

    /// The places in `entries` of its backends, and of its host names.
    fn places(&self) -> [Vec<usize>; 2] {
        let is_host = |place: &usize| {
            let draft = self.entries.get(*place);
            draft.is_some_and(|draft| matches!(draft.entry, Entry::Host(_)))
        };
        let (hosts, backends) = (0..self.entries.len()).partition(is_host);
        [backends, hosts]
    }

    fn give_up(&self, why: &str) {
        let own = self.statements.iter();
        let of_entries = self.entries.iter().flat_map(|draft| &draft.statements);
        for statement in own.chain(of_entries) {
            statement.note(why);
        }
    }
}

/// Everything that a source gives.
#[derive(Default, Debug)]
pub(crate) struct Draft {
    /// Settings of the balancer.
    pub(crate) settings: Settings,
    /// Services in the order of the source.
    pub(crate) services: Vec<ServiceDraft>,
    /// All statements of the source, in order.
    pub(crate) statements: Vec<Rc<Statement>>,
    /// What is to be said of the whole source.
    pub(crate) notes: Vec<String>,
    /// Names of services.
    pub(crate) names: Names,
    /// Addresses that stand for every address of the machine, from the command line.
    pub(crate) addresses: Vec<IpAddr>,
    backends: usize,
    ports: usize,
    /// Lines that were read for services.
    read: usize,
}

impl Draft {
    pub(crate) fn new(addresses: &[IpAddr]) -> Self {
        Self {
            addresses: addresses.to_vec(),
            ..Self::default()
        }
    }

    /// Counts lines that are read for a service; false if these are too many.
    pub(crate) fn may_read(&mut self, lines: usize) -> bool {
        self.read = self.read.saturating_add(lines);
        self.read <= MAX_READ
    }

    /// Adds a service, as long as there is room for it.
    pub(crate) fn push(&mut self, service: ServiceDraft) {
        let (ports, backends) = (service.service.port_count(), service.entries.len());
        let fits = self.services.len() < MAX_SERVICES as usize
            && self.ports + ports <= MAX_SERVICES as usize
            && self.backends + backends < MAX_BACKENDS as usize;
        if !fits {
            service.give_up(&format!(
                "not imported: more than the {MAX_SERVICES} ports or {MAX_BACKENDS} backends that fit"
            ));
            return;
        }
        self.ports += ports;
        self.backends += backends;
        self.services.push(service);
    }

    /// Takes out everything that cannot work in `lb`, with the reason as a remark, until the rest does.
    pub(crate) fn settle(&mut self) {
        loop {
            let services: Vec<Service> = self.services.iter().map(ServiceDraft::whole).collect();
            let problems = check::problems(&self.settings, &services.iter().collect::<Vec<_>>());
            if problems.is_empty() {
                return;
            }
            self.repair(&problems);
        }
    }

    fn repair(&mut self, problems: &[Problem]) {
        let mut services: HashSet<usize> = HashSet::new();
        let mut entries: HashSet<(usize, usize)> = HashSet::new();
        let places: Vec<[Vec<usize>; 2]> = self.services.iter().map(ServiceDraft::places).collect();
        let place_of = |index: usize, kind: usize, place: usize| places.get(index)?[kind].get(place).copied();
        for problem in problems {
            match problem.place {
                Place::Settings(_) => self.settings = Settings::default(),
                Place::Service(index, _)
                | Place::Guard(index, _)
                | Place::Clients(index, ..)
                | Place::Quic(index, ..) => {
                    services.insert(self.drop_service(index, problem));
                }
                Place::Health(index, _) => {
                    if let Some(draft) = self.services.get(index) {
                        for line in &draft.checks {
                            line.note(format!("no check: {}", problem.what));
                        }
                    }
                    self.change(index, problem, "no check", |service| {
                        service.health = CheckSettings::default();
                    });
                }
                Place::Agent(index, _) => self.change(index, problem, "agents are not asked", |service| {
                    service.agent = None;
                }),
                Place::Backend(index, place, key) => {
                    let shared = problem.kind == ProblemKind::Conflict && key == "address";
                    let mode = self.services.get(index).map(|draft| draft.service.mode);
                    if shared && mode == Some(Mode::Dnat) {
                        let what = "mode nat in place of dnat, so servers see the balancer's address";
                        self.change(index, problem, what, |service| service.mode = Mode::Nat);
                    } else {
                        entries.extend(self.drop_entry(index, place_of(index, 0, place), problem));
                    }
                }
                Place::Host(index, place, _) => {
                    entries.extend(self.drop_entry(index, place_of(index, 1, place), problem));
                }
            }
        }
        self.remove(services, &entries);
    }

    fn drop_service(&mut self, index: usize, problem: &Problem) -> usize {
        if let Some(draft) = self.services.get(index) {
            draft.give_up(&format!("not imported: {}", problem.what));
        }
        index
    }

    fn drop_entry(
        &mut self,
        index: usize,
        place: Option<usize>,
        problem: &Problem,
    ) -> Option<(usize, usize)> {
        let draft = self.services.get(index)?;
        let at = place?;
        for statement in &draft.entries.get(at)?.statements {
            statement.note(format!("not imported: {}", problem.what));
        }
        Some((index, at))
    }

    fn change(&mut self, index: usize, problem: &Problem, what: &str, change: impl FnOnce(&mut Service)) {
        if let Some(draft) = self.services.get_mut(index) {
            let note = format!("{what}: {}", problem.what);
            if !draft.notes.contains(&note) {
                draft.notes.push(note);
            }
            change(&mut draft.service);
        }
    }

    /// Removes entries, services, and services whose last backend went.
    fn remove(&mut self, services: HashSet<usize>, entries: &HashSet<(usize, usize)>) {
        let mut index = 0;
        self.services.retain_mut(|draft| {
            let number = index;
            index += 1;
            let had_any = !draft.entries.is_empty();
            let mut place = 0;
            let statements = &mut draft.statements;
            draft.entries.retain_mut(|entry| {
                let is_removed = entries.contains(&(number, place));
                place += 1;
                if is_removed {
                    // Its remark stands where it was.
                    statements.append(&mut entry.statements);
                }
                !is_removed
            });
            if had_any && draft.entries.is_empty() {
                draft.give_up(&format!(
                    "service {} is not imported: none of its servers can be",
                    draft.service.name
                ));
                return false;
            }
            !services.contains(&number)
        });
    }
}

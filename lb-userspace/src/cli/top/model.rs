//! What `lb top` shows, without a terminal: samples and keys in, rows and commands out.

use std::{
    collections::{HashMap, VecDeque},
    time::SystemTime,
};

use super::{
    keys::Key,
    rows::{self, BackendRow, Order, Row as _, ServiceRow, Sort},
};
use crate::{
    api::{
        rates::{Rates, Sample},
        types::Status,
    },
    state::backend::Admin,
};

/// Samples that a trend has, and width of the widest.
pub(super) const TREND: usize = 40;

/// The latest rates of a service or backend, the newest last.
#[derive(Clone, Debug, Default)]
pub(super) struct Trend(VecDeque<Rates>);

impl Trend {
    fn push(&mut self, rates: Option<Rates>) {
        if let Some(rates) = rates {
            if self.0.len() == TREND {
                self.0.pop_front();
            }
            self.0.push_back(rates);
        }
    }

    /// One of its values, at most `most` of the newest.
    pub(super) fn newest(&self, most: usize, value: fn(&Rates) -> f64) -> impl Iterator<Item = f64> + Clone {
        let skipped = self.0.len().saturating_sub(most);
        self.0.iter().skip(skipped).map(value)
    }
}

/// The trends of a service.
#[derive(Debug, Default)]
struct ServiceTrends {
    own: Trend,
    backends: HashMap<String, Trend>,
}

/// What the rows are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Page {
    /// All services.
    Services,
    /// The backends of the service of this name.
    Backends(String),
}

/// A list of rows and the place in it.
#[derive(Clone, Debug)]
pub(super) struct List {
    /// Only rows with this in their names or addresses.
    pub filter: String,
    /// Their order.
    pub sort: Sort,
    /// The name of the selected row; it stays selected where the order changes.
    selected: Option<String>,
    /// Its place, for when it vanishes.
    place: usize,
    /// The first row in the window.
    pub first: usize,
}

impl List {
    const fn ordered(by: Order) -> Self {
        Self {
            filter: String::new(),
            sort: Sort {
                by,
                is_reversed: false,
            },
            selected: None,
            place: 0,
            first: 0,
        }
    }
}

/// What the keys mean at present.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    /// They move, order and open.
    Browse,
    /// They write the filter.
    Filter,
    /// They answer whether to do this.
    Confirm(Change),
    /// Any closes the list of keys.
    Help,
}

/// A change of a backend.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Change {
    /// Its service.
    pub service: String,
    /// Its name.
    pub backend: String,
    /// Its new admin state.
    pub admin: Admin,
}

/// What a key asks of the program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Command {
    /// End.
    Quit,
    /// Ask the daemon for a change.
    Change(Change),
}

/// All that is shown.
#[derive(Debug)]
pub(super) struct Model {
    /// The latest sample.
    pub sample: Sample,
    /// The rows that are shown.
    pub page: Page,
    /// What keys mean.
    pub mode: Mode,
    /// The result of the last key, until the next one.
    pub message: Option<String>,
    /// Since when the daemon has not answered.
    pub away: Option<SystemTime>,
    /// Rows that the window has, as last drawn.
    pub height: usize,
    services: List,
    backends: List,
    total: Trend,
    trends: HashMap<String, ServiceTrends>,
}

impl Model {
    /// Begins with the first answer, which has no rates.
    pub(super) fn new(first: Sample) -> Self {
        Self {
            sample: first,
            page: Page::Services,
            mode: Mode::Browse,
            message: None,
            away: None,
            height: 1,
            services: List::ordered(Order::Packets),
            backends: List::ordered(Order::Name),
            total: Trend::default(),
            trends: HashMap::new(),
        }
    }

    /// Takes an answer of the daemon.
    pub(super) fn answered(&mut self, status: Status, at: std::time::Instant) {
        let sample = Sample::since(Some(&self.sample), status, at);
        self.away = None;
        self.total.push(sample.totals.rates);
        let mut earlier = std::mem::take(&mut self.trends);
        for row in rows::services(&sample) {
            let mut trends = earlier.remove(&row.service.name).unwrap_or_default();
            trends.own.push(row.rates.traffic);
            let mut before = std::mem::take(&mut trends.backends);
            for row in rows::backends(row) {
                let mut trend = before.remove(&row.backend.name).unwrap_or_default();
                trend.push(row.rates);
                trends.backends.insert(row.backend.name.clone(), trend);
            }
            self.trends.insert(row.service.name.clone(), trends);
        }
        self.sample = sample;
        if let Page::Backends(name) = &self.page
            && self.service(name).is_none()
        {
            self.message = Some(format!("service {name} was removed"));
            self.page = Page::Services;
            self.mode = Mode::Browse;
        }
    }

    /// The daemon does not answer.
    pub(super) fn left(&mut self, now: SystemTime) {
        self.away.get_or_insert(now);
    }

    /// The trend of all services together.
    pub(super) const fn total_trend(&self) -> &Trend {
        &self.total
    }

    /// The trend of a service, or of one of its backends.
    pub(super) fn trend(&self, service: &str, backend: Option<&str>) -> Option<&Trend> {
        let trends = self.trends.get(service)?;
        match backend {
            Some(backend) => trends.backends.get(backend),
            None => Some(&trends.own),
        }
    }

    /// A service by its name.
    pub(super) fn service(&self, name: &str) -> Option<ServiceRow<'_>> {
        rows::services(&self.sample).find(|row| row.service.name == name)
    }

    /// The services that are shown, in order.
    pub(super) fn service_rows(&self) -> Vec<ServiceRow<'_>> {
        let List { filter, sort, .. } = &self.services;
        rows::arranged(rows::services(&self.sample), filter, *sort)
    }

    /// The backends of a service that are shown, in order.
    pub(super) fn backend_rows(&self, service: &str) -> Vec<BackendRow<'_>> {
        let List { filter, sort, .. } = &self.backends;
        let rows = self.service(service).into_iter().flat_map(rows::backends);
        rows::arranged(rows, filter, *sort)
    }

    /// The list of this page.
    pub(super) const fn list(&self) -> &List {
        match self.page {
            Page::Services => &self.services,
            Page::Backends(_) => &self.backends,
        }
    }

    /// The same, to change.
    pub(super) const fn list_mut(&mut self) -> &mut List {
        match self.page {
            Page::Services => &mut self.services,
            Page::Backends(_) => &mut self.backends,
        }
    }

    /// The place of the selected row among `names`.
    pub(super) fn place<'a>(&self, mut names: impl ExactSizeIterator<Item = &'a str>) -> usize {
        let list = self.list();
        let last = names.len().saturating_sub(1);
        let found = names.position(|name| list.selected.as_deref() == Some(name));
        found.unwrap_or_else(|| list.place.min(last))
    }

    fn names(&self) -> Vec<String> {
        match &self.page {
            Page::Services => {
                let rows = self.service_rows();
                rows.iter().map(|row| row.name().to_owned()).collect()
            }
            Page::Backends(service) => {
                let rows = self.backend_rows(service);
                rows.iter().map(|row| row.name().to_owned()).collect()
            }
        }
    }

    /// The selected row's name.
    pub(super) fn selected(&self) -> Option<String> {
        let mut names = self.names();
        let place = self.place(names.iter().map(String::as_str));
        (place < names.len()).then(|| names.swap_remove(place))
    }

    /// Selects the row that `to` makes of the place of the selected one.
    fn select(&mut self, to: impl FnOnce(usize) -> usize) {
        let mut names = self.names();
        let place = self.place(names.iter().map(String::as_str));
        let place = to(place).min(names.len().saturating_sub(1));
        let list = self.list_mut();
        list.place = place;
        list.selected = (place < names.len()).then(|| names.swap_remove(place));
    }

    /// Takes a key.
    pub(super) fn key(&mut self, key: Key) -> Option<Command> {
        self.message = None;
        if key == Key::Interrupt {
            return Some(Command::Quit);
        }
        match self.mode.clone() {
            Mode::Browse => return self.browse(key),
            Mode::Filter => self.edit(key),
            Mode::Help => self.mode = Mode::Browse,
            Mode::Confirm(change) => {
                self.mode = Mode::Browse;
                if matches!(key, Key::Char('y' | 'Y')) {
                    return Some(Command::Change(change));
                }
                self.message = Some(format!("{}/{} is unchanged", change.service, change.backend));
            }
        }
        None
    }

    fn browse(&mut self, key: Key) -> Option<Command> {
        let page = self.height.max(1);
        match key {
            Key::Char('q') => return Some(Command::Quit),
            Key::Char('?') => self.mode = Mode::Help,
            Key::Char('/') => self.mode = Mode::Filter,
            Key::Char('d') => self.propose(Admin::Draining),
            Key::Char('e') => self.propose(Admin::Enabled),
            Key::Char('r') => self.list_mut().sort.is_reversed ^= true,
            Key::Char('<') => self.shift_order(Order::ALL.len() - 1),
            Key::Char('>') => self.shift_order(1),
            Key::Up | Key::Char('k') => self.select(|place| place.saturating_sub(1)),
            Key::Down | Key::Char('j') => self.select(|place| place + 1),
            Key::PageUp => self.select(|place| place.saturating_sub(page)),
            Key::PageDown => self.select(|place| place + page),
            Key::Home | Key::Char('g') => self.select(|_| 0),
            Key::End | Key::Char('G') => self.select(|_| usize::MAX),
            Key::Enter => self.open(),
            Key::Escape => self.back(),
            Key::Char(letter) => {
                if let Some(by) = Order::ALL.into_iter().find(|order| order.key() == letter) {
                    self.order(by);
                }
            }
            Key::Backspace | Key::Interrupt => {}
        }
        None
    }

    /// Orders by another column, or the other way round.
    fn order(&mut self, by: Order) {
        let sort = &mut self.list_mut().sort;
        *sort = Sort {
            by,
            is_reversed: sort.by == by && !sort.is_reversed,
        };
    }

    fn shift_order(&mut self, by: usize) {
        let now = self.list().sort.by;
        let place = Order::ALL.iter().position(|order| *order == now).unwrap_or(0);
        self.order(Order::ALL[(place + by) % Order::ALL.len()]);
    }

    fn open(&mut self) {
        if self.page == Page::Services
            && let Some(name) = self.selected()
        {
            // Also where no key has selected it: it is the one to return to.
            self.select(|place| place);
            let sort = self.backends.sort;
            self.backends = List {
                sort,
                ..List::ordered(sort.by)
            };
            self.page = Page::Backends(name);
        }
    }

    /// Takes back the filter; without one, goes back to the services.
    fn back(&mut self) {
        if self.list().filter.is_empty() {
            self.page = Page::Services;
        } else {
            self.list_mut().filter.clear();
        }
    }

    fn edit(&mut self, key: Key) {
        let filter = &mut self.list_mut().filter;
        match key {
            Key::Char(letter) => filter.push(letter),
            Key::Backspace => drop(filter.pop()),
            Key::Enter => self.mode = Mode::Browse,
            Key::Escape => {
                filter.clear();
                self.mode = Mode::Browse;
            }
            Key::Up | Key::Down | Key::PageUp | Key::PageDown | Key::Home | Key::End | Key::Interrupt => {}
        }
    }

    /// Asks whether the selected backend shall get another admin state.
    fn propose(&mut self, admin: Admin) {
        let Page::Backends(service) = &self.page else {
            self.message = Some("ENTER opens the backends of a service; drain and enable one there".into());
            return;
        };
        let service = service.clone();
        let Some(backend) = self.selected() else {
            return;
        };
        let rows = self.backend_rows(&service);
        let row = rows.iter().find(|row| row.backend.name == backend);
        if row.is_some_and(|row| row.backend.removed) {
            self.message = Some(format!("{backend} was removed; its flows finish"));
        } else if self.away.is_some() {
            self.message = Some("the daemon is away: nothing can be changed".into());
        } else {
            self.mode = Mode::Confirm(Change {
                service,
                backend,
                admin,
            });
        }
    }
}

#[cfg(test)]
mod tests;

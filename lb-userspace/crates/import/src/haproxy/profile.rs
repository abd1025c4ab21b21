//! Settings of a proxy: those of its `defaults`, and its own.

use std::{rc::Rc, time::Duration};

use lb_model::number;

use super::{address::time, reasons, server::Params};
use crate::statement::Statement;

/// Settings of a proxy that have a counterpart. What can be long is shared: each proxy has that of its `defaults`.
#[derive(Clone, Debug, Default)]
pub(super) struct Profile {
    /// Whether it reads HTTP.
    pub(super) is_http: bool,
    /// `balance`.
    pub(super) balance: Option<Rc<Statement>>,
    /// `option httpchk`, or another one that says how servers are checked.
    pub(super) check: Option<Rc<Statement>>,
    /// `http-check` and `tcp-check` lines.
    pub(super) rules: Rc<Vec<Rc<Statement>>>,
    /// Whether these are of the `defaults`; those of the proxy replace them.
    rules_inherited: bool,
    /// `external-check command`.
    pub(super) program: Option<Rc<str>>,
    /// `timeout connect`.
    pub(super) connect: Option<Duration>,
    /// `timeout check`.
    pub(super) answer: Option<Duration>,
    /// `default-server`.
    pub(super) server: Params,
    /// `default_backend`, or `use_backend` without a condition.
    pub(super) target: Option<Rc<Statement>>,
    /// `option allbackups`.
    pub(super) all_backups: bool,
    /// `stick on src`.
    pub(super) sticks_to_source: bool,
    /// `rate-limit sessions`.
    pub(super) sessions: Option<u32>,
    /// `disabled`.
    pub(super) is_disabled: bool,
}

/// Options that say how servers are checked.
const CHECKS: [&str; 9] = [
    "httpchk",
    "tcp-check",
    "ssl-hello-chk",
    "smtpchk",
    "redis-check",
    "mysql-check",
    "pgsql-check",
    "ldap-check",
    "external-check",
];

impl Profile {
    /// As these `defaults` begin.
    pub(super) fn inherited(&self) -> Self {
        Self {
            rules_inherited: true,
            ..self.clone()
        }
    }

    /// Reads a line; false if it has no counterpart.
    pub(super) fn read(&mut self, line: &Rc<Statement>) -> bool {
        let is_alone = line.words.len() == 1;
        match (line.word(0), line.word(1), line.word(2)) {
            ("mode", mode @ ("tcp" | "http"), "") => self.is_http = mode == "http",
            ("balance", ..) => {
                self.balance = Some(Rc::clone(line));
                return true;
            }
            ("option", check, _) if CHECKS.contains(&check) => {
                self.check = Some(Rc::clone(line));
                line.map(0..2);
                return true;
            }
            ("no", "option", check) if CHECKS.contains(&check) => self.check = None,
            ("option", "allbackups", "") => self.all_backups = true,
            ("no", "option", "allbackups") => self.all_backups = false,
            ("http-check" | "tcp-check", ..) => {
                if self.rules_inherited {
                    self.rules = Rc::default();
                    self.rules_inherited = false;
                }
                Rc::make_mut(&mut self.rules).push(Rc::clone(line));
                return true;
            }
            ("external-check", "command", program) => self.program = Some(program.into()),
            ("timeout", "connect", value) => match time(value) {
                Some(time) => self.connect = Some(time),
                None => return false,
            },
            ("timeout", "check", value) => match time(value) {
                Some(time) => self.answer = Some(time),
                None => return false,
            },
            ("default-server", ..) => {
                line.map(0..1);
                self.server.read(line, 1);
                return true;
            }
            // A `use_backend` without a condition goes before, and of several the first.
            ("default_backend" | "use_backend", name, "") if !name.is_empty() => {
                let is_set = |target: &Rc<Statement>| target.word(0) == "use_backend";
                if self.target.as_ref().is_some_and(is_set) {
                    line.lose_all("a use_backend without a condition goes before it");
                } else {
                    self.target = Some(Rc::clone(line));
                }
                return true;
            }
            ("stick", "on", "src") if line.words.len() == 3 => self.sticks_to_source = true,
            ("rate-limit", "sessions", rate) => match number::decimal(rate) {
                Some(rate) => self.sessions = Some(rate),
                None => return false,
            },
            ("disabled", ..) if is_alone => self.is_disabled = true,
            ("enabled", ..) if is_alone => self.is_disabled = false,
            _ => return false,
        }
        line.map_all();
        true
    }

    /// Reads a line of `defaults`: one without a counterpart gets its reason.
    pub(super) fn read_default(&mut self, line: &Rc<Statement>) {
        if !self.read(line) {
            reasons::explain(line);
        }
    }
}

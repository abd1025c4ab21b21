//! Where the value of a key lives in the checked types: how it is read into them, and written back.

use std::fmt;

use super::codec::Input;
use crate::{
    config::daemon::DaemonSettings,
    health::{
        agent::AgentSettings,
        settings::{
            CheckKind, CheckSettings, DialogueStep, DnsCheck, ExecCheck, GrpcCheck, HttpCheck, PushCheck,
            TlsCheck, UdpCheck,
        },
    },
    state::{
        backend::Backend, clients::Clients, desired::Settings, guard::Guard, quic::QuicSettings,
        service::Service,
    },
};

/// How secret keys are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keys {
    /// As fingerprints, in all output.
    Hidden,
    /// As they are, in files that only the daemon reads.
    Whole,
}

/// Reads a value into a `T`, and writes it.
pub struct Lens<T> {
    /// Does nothing if the value is missing or wrong, or if a function of its own reads it together with others.
    pub(super) read: fn(&mut T, &mut Input<'_, '_, '_>),
    /// The value in TOML; `None` if the key must be left out.
    pub(super) write: fn(&T, Keys) -> Option<String>,
}

/// The type that holds the value of a key.
#[derive(Clone, Copy, Debug)]
pub enum Access {
    /// Settings that only a start of the daemon reads.
    Daemon(Lens<DaemonSettings>),
    /// Settings that can change while it runs.
    Settings(Lens<Settings>),
    /// A service.
    Service(Lens<Service>),
    /// Its ACLs and rate limits.
    Guard(Lens<Guard>),
    /// How its agents are asked.
    Agent(Lens<AgentSettings>),
    /// One of its tables of clients.
    Clients(Lens<Clients>),
    /// One of its QUIC tables.
    Quic(Lens<QuicSettings>),
    /// One of its backends.
    Backend(Lens<Backend>),
    /// How backends are checked.
    Check(Lens<CheckSettings>),
    /// What is done in a check of some kinds.
    Kind(Lens<CheckKind>),
    /// A step of a dialogue; the only one, in the table of the check.
    Step(Lens<DialogueStep>),
    /// Tables that the tables themselves are read and written by.
    Table,
}

impl<T> Copy for Lens<T> {}

impl<T> Clone for Lens<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> fmt::Debug for Lens<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lens")
    }
}

/// A type that holds values of keys.
pub(in crate::config) trait Subject {
    /// Reads a value, if it lives here.
    fn read(&mut self, access: &Access, input: &mut Input<'_, '_, '_>);
    /// A value in TOML, if it lives here and must not be left out.
    fn write(&self, access: &Access, keys: Keys) -> Option<String>;
}

macro_rules! subjects {
    ($($variant:ident: $type:ty),+ $(,)?) => {$(
        impl Subject for $type {
            fn read(&mut self, access: &Access, input: &mut Input<'_, '_, '_>) {
                if let Access::$variant(lens) = access {
                    (lens.read)(self, input);
                }
            }

            fn write(&self, access: &Access, keys: Keys) -> Option<String> {
                if let Access::$variant(lens) = access {
                    (lens.write)(self, keys)
                } else {
                    None
                }
            }
        }
    )+};
}

subjects! {
    Daemon: DaemonSettings,
    Settings: Settings,
    Service: Service,
    Guard: Guard,
    Agent: AgentSettings,
    Clients: Clients,
    Quic: QuicSettings,
    Backend: Backend,
    Step: DialogueStep,
}

impl Subject for CheckSettings {
    fn read(&mut self, access: &Access, input: &mut Input<'_, '_, '_>) {
        if let Access::Check(lens) = access {
            (lens.read)(self, input);
        } else if let Access::Kind(lens) = access {
            (lens.read)(&mut self.kind, input);
        }
    }

    fn write(&self, access: &Access, keys: Keys) -> Option<String> {
        if let Access::Check(lens) = access {
            (lens.write)(self, keys)
        } else if let Access::Kind(lens) = access {
            (lens.write)(&self.kind, keys)
        } else if let CheckKind::Dialogue(dialogue) = &self.kind
            && let [step] = dialogue.steps.as_slice()
        {
            step.write(access, keys)
        } else {
            None
        }
    }
}

/// The settings that some kinds of check have.
pub(super) trait OfKind: Sized {
    fn of(kind: &CheckKind) -> Option<&Self>;
    fn of_mut(kind: &mut CheckKind) -> Option<&mut Self>;
}

impl OfKind for TlsCheck {
    fn of(kind: &CheckKind) -> Option<&Self> {
        if let CheckKind::Tls(check) = kind {
            Some(check)
        } else if let CheckKind::Grpc(check) = kind {
            check.tls.as_ref()
        } else {
            HttpCheck::of(kind)?.tls.as_ref()
        }
    }

    fn of_mut(kind: &mut CheckKind) -> Option<&mut Self> {
        if let CheckKind::Tls(check) = kind {
            Some(check)
        } else if let CheckKind::Grpc(check) = kind {
            check.tls.as_mut()
        } else {
            HttpCheck::of_mut(kind)?.tls.as_mut()
        }
    }
}

macro_rules! of_kinds {
    ($($type:ty: $pattern:pat => $check:ident;)+) => {$(
        impl OfKind for $type {
            fn of(kind: &CheckKind) -> Option<&Self> {
                if let $pattern = kind { Some($check) } else { None }
            }

            fn of_mut(kind: &mut CheckKind) -> Option<&mut Self> {
                if let $pattern = kind { Some($check) } else { None }
            }
        }
    )+};
}

of_kinds! {
    HttpCheck: CheckKind::Http(check) | CheckKind::Http2(check) => check;
    GrpcCheck: CheckKind::Grpc(check) => check;
    DnsCheck: CheckKind::Dns(check) => check;
    UdpCheck: CheckKind::Udp(check) => check;
    PushCheck: CheckKind::Push(check) => check;
    ExecCheck: CheckKind::Exec(check) => check;
}

/// A field that always has a value: `field!(Service.mode = word())`.
macro_rules! field {
    ($subject:ident.$($field:ident).+ = $codec:expr) => {
        Access::$subject(Lens {
            read: |of, input| {
                if let Some(value) = input.value(&$codec) {
                    of.$($field).+ = value;
                }
            },
            write: |of, _| Some($codec.text(&of.$($field).+)),
        })
    };
}

/// A field that may have no value.
macro_rules! option {
    ($subject:ident.$($field:ident).+ = $codec:expr) => {
        Access::$subject(Lens {
            read: |of, input| of.$($field).+ = input.value(&$codec),
            write: |of, _| of.$($field).+.as_ref().map(|value| $codec.text(value)),
        })
    };
}

/// A field of the settings of some kinds of check.
macro_rules! of_kind {
    ($type:ident.$field:ident = Some($codec:expr)) => {
        Access::Kind(Lens {
            read: |kind, input| {
                let value = input.value(&$codec);
                if let Some(of) = $type::of_mut(kind) {
                    of.$field = value;
                }
            },
            write: |kind, _| $type::of(kind)?.$field.as_ref().map(|value| $codec.text(value)),
        })
    };
    ($type:ident.$field:ident = $codec:expr) => {
        Access::Kind(Lens {
            read: |kind, input| {
                if let Some(value) = input.value(&$codec)
                    && let Some(of) = $type::of_mut(kind)
                {
                    of.$field = value;
                }
            },
            write: |kind, _| $type::of(kind).map(|of| $codec.text(&of.$field)),
        })
    };
}

/// A value that a function of its own reads together with others: `written!(Service: |service| …)`.
macro_rules! written {
    ($subject:ident: $write:expr) => {
        Access::$subject(Lens {
            read: |_, _| {},
            write: |of, _| ($write)(of),
        })
    };
}

pub(super) use {field, of_kind, option, written};

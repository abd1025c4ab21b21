//! The words of enumerated values; the words of checks are in [`crate::health::word`].

use super::{
    backend::Admin,
    service::{Affinity, Algorithm, OnDown, OnEmpty, Protocol, Tracking},
    xdp_mode::XdpModeChoice,
};
pub use crate::health::word::{Word, kind};

lb_health_core::words! {
    Protocol, "protocol": Protocol::Tcp = "tcp", Protocol::Udp = "udp";
    Algorithm, "algorithm": Algorithm::Maglev = "maglev", Algorithm::RoundRobin = "round-robin";
    Affinity, "affinity": Affinity::None = "none", Affinity::Source = "source", Affinity::Port = "port";
    Tracking, "tracking": Tracking::JustEnough = "just-enough", Tracking::Full = "full";
    OnEmpty, "on_empty": OnEmpty::Drop = "drop", OnEmpty::Reject = "reject", OnEmpty::All = "all";
    OnDown, "on_down": OnDown::Move = "move", OnDown::Keep = "keep";
    Admin, "admin": Admin::Enabled = "enabled", Admin::Draining = "draining", Admin::Disabled = "disabled";
    XdpModeChoice, "xdp_mode": XdpModeChoice::Auto = "auto", XdpModeChoice::Native = "native", XdpModeChoice::Generic = "generic";
}

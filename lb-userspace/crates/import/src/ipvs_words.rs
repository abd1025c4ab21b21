//! Words of IPVS that keepalived and ipvsadm share: schedulers and forwarding methods.

use lb_common::{service::Mode, tunnel::GUE_PORT};
use lb_model::{
    number,
    state::service::{Affinity, Algorithm, Service, Tracking},
};

use crate::statement::Statement;

/// How IPVS forwards to a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Method {
    /// The mode that does the same.
    pub(crate) mode: Mode,
    /// Port of GUE, where a line says so.
    pub(crate) gue_port: Option<u16>,
}

impl Default for Method {
    /// IPVS's default.
    fn default() -> Self {
        Self::new(Mode::L2dsr)
    }
}

impl Method {
    pub(crate) const fn new(mode: Mode) -> Self {
        Self { mode, gue_port: None }
    }
}

/// The spread and affinity of a scheduler, and why it is not the same.
pub(crate) fn schedule(name: &str) -> ((Algorithm, Affinity), Option<&'static str>) {
    let by_turns = (Algorithm::RoundRobin, Affinity::None);
    let by_source = (Algorithm::Maglev, Affinity::Source);
    match name {
        "rr" | "wrr" => (by_turns, None),
        "sh" | "mh" => (by_source, None),
        "lc" | "wlc" | "sed" | "nq" | "ovf" | "twos" => (
            by_turns,
            Some("lb does not choose by the number of connections; new flows are spread evenly, by weight"),
        ),
        "dh" | "lblc" | "lblcr" => (
            (Algorithm::Maglev, Affinity::None),
            Some(
                "a service has one address, so its hash selects nothing; new flows are spread evenly, by weight",
            ),
        ),
        "fo" => (
            by_turns,
            Some("all backends take flows: mark all but the first with backup = true for a failover"),
        ),
        _ => (
            by_turns,
            Some("unknown to lb import; new flows are spread evenly, by weight"),
        ),
    }
}

/// Whether a flag of the schedulers `sh` and `mh` has the client's port hashed, too. `None` for other words. The flags for servers
/// that are down say what `lb` does anyway.
pub(crate) fn hash_flag(flag: &str) -> Option<bool> {
    match flag {
        "sh-port" | "mh-port" | "flag-2" => Some(true),
        "sh-fallback" | "mh-fallback" | "flag-1" => Some(false),
        _ => None,
    }
}

/// How IPVS selects a server.
#[derive(Clone, Default, Debug)]
pub(crate) struct Scheduling {
    /// Name of the scheduler.
    pub(crate) scheduler: Option<String>,
    /// Whether clients stay at a server.
    pub(crate) is_persistent: bool,
    /// Whether a hash covers the client's port.
    pub(crate) by_port: bool,
}

impl Scheduling {
    /// Sets how flows of a service are spread. Its mode must be set; `modes` are those of its backends.
    pub(crate) fn set(&self, service: &mut Service, modes: &[Mode]) {
        // IPVS's default is wlc.
        let ((algorithm, affinity), _) = schedule(self.scheduler.as_deref().unwrap_or("wlc"));
        (service.algorithm, service.affinity) = match (self.is_persistent, affinity) {
            (true, _) => (Algorithm::Maglev, Affinity::Source),
            (false, Affinity::Source) if self.by_port => (Algorithm::Maglev, Affinity::None),
            (false, affinity) => (algorithm, affinity),
        };
        if service.algorithm != Algorithm::RoundRobin {
            return;
        }
        let is_nat = |mode: &Mode| *mode == Mode::Nat;
        let all = || modes.iter().chain([&service.mode]);
        // IPVS records each connection, too.
        if !all().any(is_nat) {
            service.tracking = Tracking::Full;
        }
    }
}

/// A method by the words of keepalived from `at` on: `NAT`, `DR`, `TUN [type ipip|gue port N|gre] [csum…]`.
pub(crate) fn method(line: &Statement, at: usize) -> Option<Method> {
    let mode = match line.word(at) {
        "NAT" | "nat" => Mode::Dnat,
        "DR" | "dr" => Mode::L2dsr,
        "TUN" | "tun" => Mode::Ipip,
        _ => return None,
    };
    line.map(at..at + 1);
    let mut method = Method::new(mode);
    let mut at = at + 1;
    while at < line.words.len() {
        at += match (line.word(at), line.word(at + 1)) {
            ("type", "ipip") => {
                line.map(at..at + 2);
                2
            }
            ("type", "gue") => {
                method.mode = Mode::Gue;
                line.map(at..at + 2);
                2
            }
            ("type", "gre") => {
                line.lose(at..at + 2, GRE);
                2
            }
            ("port", port) if number::decimal::<u16>(port).is_some() => {
                method.gue_port = number::decimal(port);
                line.map(at..at + 2);
                2
            }
            ("csum" | "nocsum" | "remcsum", _) => {
                line.lose(at..at + 1, CHECKSUM);
                1
            }
            _ => 1,
        };
    }
    Some(method)
}

/// Why GRE cannot be imported.
pub(crate) const GRE: &str = "lb has no GRE: the backend must end IP in IP tunnels (mode ipip)";
/// Why tunnels have no options for checksums.
pub(crate) const CHECKSUM: &str =
    "outer headers of mode gue over IPv4 have no checksum; the inner packet has its own";

/// The port of mode gue, where sources name one; it is one for all.
pub(crate) fn gue_port(ports: impl Iterator<Item = u16>) -> (u16, bool) {
    let mut all: Vec<u16> = ports.collect();
    all.sort_unstable();
    all.dedup();
    (all.first().copied().unwrap_or(GUE_PORT), all.len() > 1)
}

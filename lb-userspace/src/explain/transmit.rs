//! How a packet leaves: its size and its next hop, as in `lb-ebpf/src/next_hop.rs`.

use lb_common::{
    backend::{Backend, IPV6, RESOLVED},
    hash::HashBy,
    reason::Reason,
    service::Mode,
    tunnel,
};
use lb_wire::next_stage::NextStage;

use super::{frame::Carried, walk::Walk, words};

impl Walk<'_> {
    /// Whether the packet fits the path to a backend together with the headers of its mode.
    fn fits(&mut self, backend: &Backend) -> bool {
        let overhead = match Mode::from_u8(backend.mode) {
            Some(mode @ (Mode::Ipip | Mode::Gue)) => tunnel::overhead(backend.has(IPV6), mode == Mode::Gue),
            Some(Mode::Nat | Mode::Dnat | Mode::L2dsr) | None => 0,
        };
        let (mtu, length) = (usize::from(backend.mtu), usize::from(self.question.length));
        if mtu == 0 {
            return true;
        }
        let most = mtu.saturating_sub(overhead);
        if length > most {
            self.say(format!(
                "its {length} bytes do not fit: an ICMP error reports that {most} would, as far as the rate limit of \
                 such errors allows; the MTU is {mtu}, and the mode's headers take {overhead}"
            ));
            return false;
        }
        self.say(format!("packets of up to {most} bytes fit the path to it"));
        true
    }

    /// Adds how the packet reaches a backend.
    pub(super) fn way(&mut self, backend: &Backend) -> NextStage {
        if !self.fits(backend) {
            return NextStage::TooBig;
        }
        let address = backend.address.to_ip();
        let state = self.tables.next_hop(address);
        if backend.has(RESOLVED) {
            let mac = words::mac(backend.next_hop_mac);
            let failure = state.and_then(|state| state.error());
            let failure = failure.map(|error| format!(" ({error})")).unwrap_or_default();
            self.say(format!("the next hop towards {address} is {mac}{failure}"));
            self.explanation.frame = Carried {
                question: self.question,
                rewritten: self.rewritten,
                backend,
                hash: self.tuple.hash(HashBy::Tuple),
                gue_port: self.settings.gue_port,
            }
            .frame();
            return self.leaves(backend.ifindex).into();
        }
        let error = state.and_then(|state| state.error());
        let error = error.unwrap_or_else(|| "its neighbour entry is missing".to_owned());
        self.say(format!(
            "the next hop towards {address} is not resolved: {error}; the kernel's routes are looked up for each packet"
        ));
        Reason::NoNextHop.into()
    }

    pub(super) fn leaves(&mut self, ifindex: u32) -> Reason {
        self.explanation.ifindex = Some(ifindex);
        if ifindex == self.question.ifindex {
            Reason::SentBack
        } else {
            Reason::Redirected
        }
    }
}

//! Questions to backends, and their answers.

use lb_common::service::Mode;

use super::packet::{Answer, Question};
use crate::{
    datapath::host_network::HostLink,
    state::{backend::Backend, service::Service},
};

/// What a question is to find out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Aim {
    /// Whether a server accepts connections to the service.
    Server,
    /// Whether the backend has the service's address.
    Address,
    /// Whether the backend ends the tunnel.
    Tunnel,
    /// Whether answers to another address come back.
    Return,
}

/// A question to a backend, and its answer.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) aim: Aim,
    pub(super) question: Question,
    pub(super) answer: Option<Came>,
}

/// An answer, and the way on which it came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Came {
    pub(super) answer: Answer,
    pub(super) ifindex: u32,
    pub(super) mac: [u8; 6],
    pub(super) is_sound: bool,
}

/// A backend of a service, and what it is asked.
#[derive(Clone, Debug)]
pub(super) struct Subject<'a> {
    pub(super) service: &'a Service,
    pub(super) backend: &'a Backend,
    pub(super) mode: Mode,
    /// The interface towards it.
    pub(super) link: &'a HostLink,
    /// Link-layer address of the next hop.
    pub(super) mac: [u8; 6],
    /// The next hop is a router.
    pub(super) is_routed: bool,
    pub(super) asked: Vec<Asked>,
}

impl Subject<'_> {
    pub(super) fn came(&self, aim: Aim) -> Option<Came> {
        let mut asked = self.asked.iter().filter(|asked| asked.aim == aim);
        asked.find_map(|asked| asked.answer)
    }

    pub(super) fn question(&self, aim: Aim) -> Option<&Question> {
        let mut asked = self.asked.iter().filter(|asked| asked.aim == aim);
        asked.next().map(|asked| &asked.question)
    }
}

//! Commands to the writer.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use lb_common::service::RingId;
use tokio::sync::oneshot;

use super::{error::ProgramError, neighbours::next_hop::NextHop, own_macs::OwnMacs, slots::Round};
use crate::{plan::Target, transition::Walked};

/// The work done to reach a target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProgramReport {
    /// Writes.
    pub steps: usize,
    /// Time they took, with the wait for packets under way.
    pub elapsed: Duration,
}

/// Commands to the writer.
#[derive(Debug)]
pub(super) enum Command {
    /// Reach a target.
    Program(Box<Target>, oneshot::Sender<Result<ProgramReport, ProgramError>>),
    /// New next hops of these addresses.
    NextHops(BTreeMap<IpAddr, NextHop>),
    /// Frames to these link-layer addresses are for this machine.
    OwnMacs(OwnMacs),
    /// Return the rings for which the flow tables are to be walked.
    Walk(oneshot::Sender<Round>),
    /// End the phases of slots for which the tables were walked.
    Walked(Vec<(RingId, Walked)>),
    /// End.
    End(oneshot::Sender<()>),
}

//! The data plane, and the only crate that uses the kernel's BPF: loading, pins, links, maps, counters, neighbours.
//!
//! [`Datapath::open`] brings the program onto the interfaces, or takes over what an earlier daemon left there.
//! [`WriterTask`] then owns the maps and executes plans; [`StatsReader`] reads counters beside it. After
//! [`WriterHandle::keep`] or a kill, the programs in the kernel go on forwarding.
//!
//! This crate must not know files, the API, commands or metrics, nor decide what should be programmed.

#![allow(
    clippy::disallowed_methods,
    reason = "it drives sockets and maps, and what decides in it is handed the time"
)]

mod attach;
mod capabilities;
mod checks;
mod clients;
mod command;
mod cpus;
mod datapath;
mod decap;
mod directory;
mod early;
mod error;
mod execute;
mod faults;
mod fill;
mod flows;
mod gate;
mod grace;
mod half;
mod held;
mod host;
pub mod host_network;
mod interface;
mod kept;
mod kernel_clock;
mod left;
mod live;
mod load;
mod loading;
mod make;
mod map_key;
mod map_shape;
mod maps;
mod monitor;
mod needs;
mod neighbours;
mod netlink;
mod object;
mod objects;
mod own_macs;
mod pin;
mod places;
mod prepare;
mod programmed;
mod quic;
mod records;
mod redirects;
mod replies;
mod services;
mod slots;
mod snapshot;
mod spread;
mod stages;
mod stats;
mod sweeper;
mod sys;
mod tables;
mod writer;

pub use self::{
    attach::AttachResult,
    capabilities::missing_capabilities,
    checks::CheckPaths,
    command::ProgramReport,
    datapath::{DEFAULT_PIN_DIR, Datapath, detach_leftovers},
    decap::{Decap, DecapOptions},
    early::EarlyStart,
    error::{DatapathError, ProgramError},
    faults::{DatapathPart, PartChange, PartState},
    flows::{
        FlowReader,
        flow::{Flow, FlowFilter, FlowState, ReadFlows, WayBack},
    },
    host::HostAddresses,
    interface::{
        AttachOptions, Attachment, Interface, InterfaceChange, InterfaceChangeKind, InterfaceProblem,
        Interfaces, XdpMode, missing,
    },
    left::{
        LeftBackend, LeftForwarding, LeftInterface, LeftService, LeftState, left_forwarding, left_state,
        sees_programs,
    },
    live::LiveTables,
    monitor::{Monitor, MonitorFilter, MonitoredPacket, Places, error::MonitorError},
    needs::{Needs, needs_of},
    neighbours::{FIRST_ANSWER_WAIT, NextHop, NextHopState, NextHops},
    netlink::{HostAddress, LinkOperation, TiedTo, netlink_readings},
    objects::kernel_objects,
    pin::{interface_name, other_layout, pin_obstacle},
    snapshot::{
        BackendSignals, BackendStats, GaveWay, InterfaceStats, LinkLosses, MapUse, RedirectErrors, Snapshot,
    },
    stats::StatsReader,
    tables::{Answers, AnyTuple, ReadTables, Translated},
    writer::{WriterHandle, WriterTask},
};
use lb_health_core as health;
use lb_model::state;
use lb_plan::{self as plan, transition};

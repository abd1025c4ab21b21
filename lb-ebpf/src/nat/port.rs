//! The source port of a flow that begins. Inserting the reply entry where none stands is the allocation: two CPUs cannot get
//! the same one.

use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use lb_common::{
    addr::NetPort,
    limits::{GIVING_WAY_PATIENCE, GIVING_WAY_TURNS, SNAT_LAST_DRAWS, SNAT_PORT_DRAWS, SNAT_PORT_TURNS},
    reason::Reason,
};

use super::{give_way, track};
use crate::{
    family::Family,
    global::{decode, encode, global},
    maps::{cursors, flows::InsertError, tables},
    scratch::{NewFlow, Scratch},
};

/// What the functions below return for a port that another flow has, and where the table is full: no result that is encoded.
const TAKEN: u32 = u32::MAX;
const FULL: u32 = u32::MAX - 1;
/// Ports that one function tries. One loop over all of them would be walked by the verifier for each.
const PORTS_AT_ONCE: u32 = 8;
const _: () = assert!((SNAT_PORT_TURNS + SNAT_PORT_DRAWS).is_multiple_of(PORTS_AT_ONCE));
/// The result of all of them for success.
const DONE: u32 = 0;

/// Finds a source port that is free, or that a half-open flow gives way for, and completes both entries with it.
#[inline(always)]
pub(crate) fn take<A: Family>(scratch: &mut Scratch<A>) -> Result<(), Reason> {
    decode(take_port(scratch))
}

/// As [`take`], but only a port for which a half-open flow gives way.
#[inline(always)]
pub(crate) fn take_over<A: Family>(scratch: &mut Scratch<A>) -> Result<(), Reason> {
    decode(take_over_port(scratch))
}

global! {
    /// [`take`].
    fn take_port(&mut Scratch) -> u32 = take_port_v4, take_port_v6: search_port
}

global! {
    /// [`take_over`].
    fn take_over_port(&mut Scratch) -> u32 = take_over_port_v4, take_over_port_v6: search_holder
}

global! {
    /// Tries [`PORTS_AT_ONCE`] ports. `tried`: how many were tried before.
    fn try_ports(&mut Scratch, tried: u32) -> u32 = try_ports_v4, try_ports_v6: try_some
}

global! {
    /// Tries one port: the next one, or a random one, by how many were `tried`; see [`is_draw`].
    fn try_port(&mut Scratch, tried: u32) -> u32 = try_port_v4, try_port_v6: try_one
}

global! {
    /// Tries to have the holder of the next port give way.
    fn try_holder(&mut Scratch) -> u32 = try_holder_v4, try_holder_v6: try_one_holder
}

#[inline(always)]
fn search_port<A: Family>(scratch: &mut Scratch<A>) -> u32 {
    let mut found = encode(Err(Reason::SnatPortsExhausted));
    for round in 0..(SNAT_PORT_TURNS + SNAT_PORT_DRAWS) / PORTS_AT_ONCE {
        match try_ports(scratch, round * PORTS_AT_ONCE) {
            TAKEN => {}
            FULL => found = encode(Err(Reason::FlowTableFull)),
            other => return other,
        }
    }
    found
}

#[inline(always)]
fn try_some<A: Family>(scratch: &mut Scratch<A>, tried: u32) -> u32 {
    let mut found = TAKEN;
    for more in 0..PORTS_AT_ONCE {
        match try_port(scratch, tried + more) {
            TAKEN => {}
            FULL => found = FULL,
            other => return other,
        }
    }
    found
}

#[inline(always)]
fn try_one<A: Family>(scratch: &mut Scratch<A>, tried: u32) -> u32 {
    let port = set_port(scratch, tried);
    if port != DONE {
        return port;
    }
    let inserted = insert_reply(scratch);
    if inserted != TAKEN && inserted != FULL {
        return inserted;
    }
    // Unless another CPU is faster.
    if give_way::end_holder(scratch, tried) && insert_reply(scratch) == DONE {
        return DONE;
    }
    inserted
}

/// Whether a port is tried anywhere in the range: the second half of those at which no young flow gives way, and the last ones.
#[inline(always)]
const fn is_draw(tried: u32) -> bool {
    const PATIENT_TURNS: u32 = GIVING_WAY_PATIENCE / 2;
    (PATIENT_TURNS <= tried && tried < GIVING_WAY_PATIENCE) || tried >= SNAT_LAST_DRAWS
}

#[inline(always)]
fn search_holder<A: Family>(scratch: &mut Scratch<A>) -> u32 {
    for _ in 0..GIVING_WAY_TURNS {
        match try_holder(scratch) {
            TAKEN | FULL => {}
            other => return other,
        }
    }
    encode(Err(Reason::FlowTableFull))
}

#[inline(always)]
fn try_one_holder<A: Family>(scratch: &mut Scratch<A>) -> u32 {
    // In turn, and the oldest flow, however young it is.
    let port = set_port(scratch, give_way::ANY);
    if port != DONE {
        return port;
    }
    if give_way::end_holder(scratch, give_way::ANY) {
        insert_reply(scratch)
    } else {
        TAKEN
    }
}

/// Takes the port of both entries, if it is free: if this program can insert the reply entry.
#[inline(always)]
fn insert_reply<A: Family>(scratch: &mut Scratch<A>) -> u32 {
    match A::insert(&scratch.new_flow.reply_key, &scratch.new_flow.reply) {
        Ok(()) => DONE,
        Err(InsertError::Exists) => TAKEN,
        Err(InsertError::Full) => FULL,
        Err(InsertError::Unexpected) => encode(Err(Reason::Internal)),
    }
}

/// Completes both entries with a source port.
#[inline(always)]
fn set_port<A: Family>(scratch: &mut Scratch<A>, tried: u32) -> u32 {
    encode(try_set_port(scratch, tried))
}

#[inline(always)]
fn try_set_port<A: Family>(scratch: &mut Scratch<A>, tried: u32) -> Result<(), Reason> {
    let Scratch { tuple, new_flow, .. } = scratch;
    let NewFlow {
        forward,
        reply,
        reply_key,
    } = new_flow;
    let settings = tables::settings()?;
    let addresses = A::snat_count(settings);
    let ports = u32::from(settings.snat_port_count);
    let slots = ports * addresses.max(1);
    if slots == 0 {
        return Err(Reason::SnatPortsExhausted);
    }
    let turn = if is_draw(tried) {
        // SAFETY: takes no arguments.
        u64::from(unsafe { bpf_get_prandom_u32() })
    } else {
        cursors::port_turn(forward.backend)?
    };
    #[expect(clippy::cast_possible_truncation, reason = "less than `slots`")]
    let slot = (turn % u64::from(slots)) as u32;
    if addresses != 0 {
        forward.src = A::from_record(&tables::snat_address(A::SNAT_BASE + slot / ports)?);
    }
    if forward.src.is_unspecified() {
        return Err(Reason::NoSnatAddress);
    }
    let port = u32::from(settings.snat_port_first) + slot % ports;
    #[expect(clippy::cast_possible_truncation, reason = "the range is one of ports")]
    let port = port as u16;
    forward.src_port = NetPort::new(port);
    track::set_deltas(tuple, forward);
    *reply_key = forward.peer(tuple.protocol);
    reply.check = A::tuple_check(reply_key);
    reply.ip_delta = !forward.ip_delta;
    reply.l4_delta = !forward.l4_delta;
    Ok(())
}

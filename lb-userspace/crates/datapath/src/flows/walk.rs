//! The walk through the tables, to show flows or to remove them.

use std::{
    hash::Hash,
    io,
    net::SocketAddr,
    ops::ControlFlow,
    sync::{Mutex, MutexGuard, PoisonError},
};

use aya::Pod;
use lb_common::{
    check,
    flow::{FORWARD, NatFlow, REPLY, Tuple},
    service::TCP,
    track::{self, FlowRecord, Tick},
};

use super::{
    address::Address,
    flow::{Flow, FlowFilter, FlowState, WayBack, age},
    owners::Owners,
    pairs::{Pair, Pairs},
};
use crate::{
    half::half,
    kernel_clock::monotonic,
    maps::{LateTable, Maps, Table},
    state::service::Protocol,
};

/// What a walk does with flows.
pub(super) enum Act<'a> {
    /// Gives them to a visitor, some at a time, until it breaks.
    Show(&'a mut dyn FnMut(&[Flow]) -> ControlFlow<()>),
    /// Removes them, and counts how many.
    Remove(&'a mut u64),
}

/// A walk through all tables.
pub(super) struct Walk<'a> {
    maps: &'a Maps,
    /// Held while a chunk is read.
    turn: &'a Mutex<()>,
    filter: &'a FlowFilter,
    owners: Owners<'a>,
    act: Act<'a>,
    /// Flows of the chunk at hand.
    flows: Vec<Flow>,
    is_over: bool,
}

impl<'a> Walk<'a> {
    pub(super) const fn new(
        maps: &'a Maps,
        turn: &'a Mutex<()>,
        filter: &'a FlowFilter,
        owners: Owners<'a>,
        act: Act<'a>,
    ) -> Self {
        Self {
            maps,
            turn,
            filter,
            owners,
            act,
            flows: Vec::new(),
            is_over: false,
        }
    }

    /// Walks to the end, or until the visitor breaks.
    pub(super) fn run(mut self) -> io::Result<()> {
        let maps = self.maps;
        if self.filter.takes_family(true) {
            self.nat_table(&maps.flows_v4)?;
        }
        if self.filter.takes_family(false) {
            self.nat_table(&maps.flows_v6)?;
        }
        // In this order a flow that is proven meanwhile is met at least once.
        for kind in track::Table::SWEEP_ORDER {
            if self.filter.takes_family(true) {
                self.record_table(kind, maps.flow_records_v4.of(kind))?;
            }
            if self.filter.takes_family(false) {
                self.record_table(kind, maps.flow_records_v6.of(kind))?;
            }
        }
        Ok(())
    }

    fn nat_table<A: Address>(&mut self, table: &Table<Tuple<A>, NatFlow<A>>) -> io::Result<()>
    where
        Tuple<A>: Pod + Default + PartialEq + Hash,
        NatFlow<A>: Pod + Default,
    {
        let mut chunks = table.chunks();
        let mut pairs = Pairs::new();
        while !self.is_over {
            let turn = take(self.turn);
            let Some((tuples, flows)) = chunks.next_chunk()? else {
                break;
            };
            self.owners.refresh();
            let now = monotonic();
            let now = (low(now.as_secs().into()), low(now.as_millis()));
            for (tuple, flow) in tuples.iter().zip(flows) {
                let client = match flow.direction {
                    FORWARD => *tuple,
                    REPLY => flow.peer(tuple.protocol),
                    // Another flow is taking its place.
                    _ => continue,
                };
                // Checks through the VIP are the balancer's own.
                if !self.takes_client(&client) || check::is_check(&client) {
                    continue;
                }
                match self.act {
                    Act::Remove(_) if flow.direction == FORWARD => self.remove_nat(table, tuple, flow)?,
                    Act::Remove(_) => {}
                    Act::Show(_) => self.nat_direction(&mut pairs, tuple, flow, now)?,
                }
            }
            drop(turn);
            self.show();
        }
        Ok(())
    }

    /// Takes a direction of a flow. A flow that lacks one, or its owner, cannot work, and the sweeper removes it. `now` is in
    /// seconds and milliseconds.
    fn nat_direction<A: Address>(
        &mut self,
        pairs: &mut Pairs,
        tuple: &Tuple<A>,
        flow: &NatFlow<A>,
        (secs, millis): (u32, u32),
    ) -> io::Result<()>
    where
        Tuple<A>: Hash,
    {
        let Some(owner) = self.owners.owner(flow.backend, flow.generation) else {
            return Ok(());
        };
        let (service, backend) = (owner.service, owner.address);
        let Some(pair) = pairs.add(tuple, flow) else {
            return Ok(());
        };
        let Pair {
            client,
            to_backend,
            forward,
            reply,
            began,
        } = pair;
        let state = FlowState::of(tuple.protocol, forward, reply);
        if !self.takes_state(state) {
            return Ok(());
        }
        let idle = secs.saturating_sub(forward.last_seen.max(reply.last_seen));
        self.flows.push(Flow {
            protocol: protocol(client.protocol),
            client: source(&client),
            destination: destination(&client),
            service,
            owner: (flow.backend, flow.generation),
            backend,
            to: destination(&to_backend),
            via: Some(source(&to_backend)),
            state,
            age: Some(age(millis, began).max(idle)),
            idle,
            slot: self.owners.slot(&service, &client)?,
            // Both entries have it.
            way_back: Some(WayBack {
                ifindex: flow.last_hop.ifindex,
                vlans: flow.last_hop.vlans,
            }),
        });
        Ok(())
    }

    /// Removes a flow by its forward entry, if it is meant.
    fn remove_nat<A: Address>(
        &mut self,
        table: &Table<Tuple<A>, NatFlow<A>>,
        tuple: &Tuple<A>,
        flow: &NatFlow<A>,
    ) -> io::Result<()>
    where
        Tuple<A>: Pod + Default + PartialEq,
        NatFlow<A>: Pod + Default,
    {
        if self.owners.owner(flow.backend, flow.generation).is_none() {
            return Ok(());
        }
        let reply_tuple = flow.peer(tuple.protocol);
        let owner = (flow.backend, flow.generation);
        let is_reply = |there: &NatFlow<A>| {
            there.direction == REPLY
                && (there.backend, there.generation) == owner
                && there.peer(tuple.protocol) == *tuple
        };
        let Some(reply) = table.get(&reply_tuple)?.filter(is_reply) else {
            return Ok(());
        };
        if !self.takes_state(FlowState::of(tuple.protocol, half(flow), half(&reply))) {
            return Ok(());
        }
        let is_same = |there: NatFlow<A>| {
            there.direction == FORWARD
                && (there.backend, there.generation) == owner
                && there.peer(tuple.protocol) == reply_tuple
        };
        // The forward entry first: were the reply entry gone before it, its port could be given to another flow while this
        // one still sends from it. Only the walk that removed the forward entry removes the reply entry, unless the port has gone
        // to another flow meanwhile, as where half-open flows give way.
        if table.get(tuple)?.is_some_and(is_same) && table.delete(tuple)? {
            self.removed();
            if table.get(&reply_tuple)?.as_ref().is_some_and(is_reply) {
                table.delete(&reply_tuple)?;
            }
        }
        Ok(())
    }

    /// Counts a flow that was removed.
    fn removed(&mut self) {
        if let Act::Remove(count) = &mut self.act {
            **count += 1;
        }
    }

    fn record_table<A: Address>(
        &mut self,
        kind: track::Table,
        table: &LateTable<Tuple<A>, FlowRecord>,
    ) -> io::Result<()>
    where
        Tuple<A>: Pod + Default,
    {
        let Some(table) = table.get()? else {
            return Ok(());
        };
        let state = match kind {
            track::Table::Opening => FlowState::Opening,
            track::Table::Seen | track::Table::Tracked => FlowState::Established,
        };
        if !self.takes_state(state) {
            return Ok(());
        }
        let mut chunks = table.chunks();
        while !self.is_over {
            let turn = take(self.turn);
            let Some((tuples, records)) = chunks.next_chunk()? else {
                break;
            };
            self.owners.refresh();
            let now = Tick::from_secs(monotonic().as_secs());
            for (tuple, record) in tuples.iter().zip(records) {
                self.record(table, tuple, record, state, now)?;
            }
            drop(turn);
            self.show();
        }
        Ok(())
    }

    /// Takes a record. One of a dead backend counts as none.
    fn record<A: Address>(
        &mut self,
        table: &Table<Tuple<A>, FlowRecord>,
        tuple: &Tuple<A>,
        record: &FlowRecord,
        state: FlowState,
        now: Tick,
    ) -> io::Result<()>
    where
        Tuple<A>: Pod + Default,
    {
        if !self.takes_client(tuple) {
            return Ok(());
        }
        let owner = self.owners.owner(record.backend, record.generation);
        let Some(owner) = owner.filter(|owner| owner.alive) else {
            return Ok(());
        };
        let (service, backend) = (owner.service, owner.address);
        if matches!(self.act, Act::Remove(_)) {
            let is_same =
                |there: FlowRecord| (there.backend, there.generation) == (record.backend, record.generation);
            if table.get(tuple)?.is_some_and(is_same) && table.delete(tuple)? {
                self.removed();
            }
            return Ok(());
        }
        let mut to = backend;
        if to.port() == 0 {
            to.set_port(tuple.dst_port.get());
        }
        self.flows.push(Flow {
            protocol: protocol(tuple.protocol),
            client: source(tuple),
            destination: destination(tuple),
            service,
            owner: (record.backend, record.generation),
            backend,
            to,
            via: None,
            state,
            age: None,
            idle: record.last_seen.secs_until(now),
            slot: self.owners.slot(&service, tuple)?,
            way_back: None,
        });
        Ok(())
    }

    fn takes_client<A: Address>(&self, tuple: &Tuple<A>) -> bool {
        self.filter
            .client
            .is_none_or(|prefix| prefix.contains(tuple.src.ip()))
    }

    fn takes_state(&self, state: FlowState) -> bool {
        self.filter.state.is_none_or(|meant| meant == state)
    }

    /// Gives the flows of a chunk to the visitor.
    fn show(&mut self) {
        if let Act::Show(visit) = &mut self.act
            && !self.flows.is_empty()
        {
            self.is_over = visit(&self.flows).is_break();
            self.flows.clear();
        }
    }
}

/// A walk that panicked leaves nothing behind that the next one could stumble over.
fn take(turn: &Mutex<()>) -> MutexGuard<'_, ()> {
    turn.lock().unwrap_or_else(PoisonError::into_inner)
}

fn source<A: Address>(tuple: &Tuple<A>) -> SocketAddr {
    SocketAddr::new(tuple.src.ip(), tuple.src_port.get())
}

fn destination<A: Address>(tuple: &Tuple<A>) -> SocketAddr {
    SocketAddr::new(tuple.dst.ip(), tuple.dst_port.get())
}

fn protocol(number: u8) -> Protocol {
    if number == TCP {
        Protocol::Tcp
    } else {
        Protocol::Udp
    }
}

/// The number modulo 2^32, as entries have it.
fn low(number: u128) -> u32 {
    let [a, b, c, d, ..] = number.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

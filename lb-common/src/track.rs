//! The flow tables of services with `just-enough` tracking (modes that keep no state in stable slots), and how a packet
//! uses them. [`crate::ring_slot`] has the rules, this module the look-ups and writes around them, in the order that
//! makes the rules hold.
//!
//! A flow in a slot that is not stable is recorded under its tuple in one of three tables, by the packets seen from its
//! client. The two small ones forget their oldest records, so a flood only evicts records of its own kind and never a
//! proven flow:
//!
//! | [`Table`] | holds | when full |
//! |---|---|---|
//! | `Tracked` | proven flows | refuses; the flow stays where it is |
//! | `Opening` | flows of which only a TCP SYN came: they follow `current` | forgets the oldest |
//! | `Seen` | flows of which one other packet came: they follow `previous` | forgets the oldest |
//!
//! The sweeper reads `Opening` and `Seen` before `Tracked`: a flow that is proven meanwhile is inserted there before it
//! is removed here, so the sweeper meets it at least once.

use crate::{
    backend::{BackendId, Generation},
    plain_data,
    ring_slot::{Decision, Known, Record, RingSlot},
};

/// One of the three tables of flows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Table {
    /// Proven flows.
    Tracked,
    /// Flows that have only opened.
    Opening,
    /// Older flows of which one packet came since their slot changed.
    Seen,
}

impl Table {
    /// All tables, in the order in which they are to be read as a whole.
    pub const SWEEP_ORDER: [Self; 3] = [Self::Opening, Self::Seen, Self::Tracked];
}

/// Seconds in a [`Tick`].
pub const TICK_SECS: u32 = 4;

/// A time on CLOCK_MONOTONIC in units of [`TICK_SECS`], modulo 2^16. It wraps around after three days; a record older
/// than half of that looks young once more, which only delays its end. Coarse, so that a busy flow's record is rarely
/// written.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Tick(pub u16);

impl Tick {
    /// The tick of a time in seconds.
    #[inline(always)]
    pub const fn from_secs(secs: u64) -> Self {
        let [low, high, ..] = (secs / TICK_SECS as u64).to_le_bytes();
        Self(u16::from_le_bytes([low, high]))
    }

    /// Seconds from this tick to `now`, to within one tick; 0 if this one is the later, as where a packet came after
    /// `now` was read.
    #[inline(always)]
    pub const fn secs_until(self, now: Self) -> u32 {
        let ticks = now.0.wrapping_sub(self.0);
        if ticks <= u16::MAX / 2 {
            ticks as u32 * TICK_SECS
        } else {
            0
        }
    }
}

/// Value of a flow in any of the tables: eight bytes read in one load, so no reader sees half of it. The kernel may
/// reuse the memory of a removed record for another flow while a packet still reads it: the reader compares `check`,
/// and writes only `last_seen` in place.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FlowRecord {
    /// The backend that owns the flow.
    pub backend: BackendId,
    /// The backend id's generation when the flow was recorded; another one now means that the backend was removed.
    pub generation: Generation,
    /// When the flow's last packet came.
    pub last_seen: Tick,
    /// [`fold`] of the tuple the record stands under.
    pub check: u16,
}

impl FlowRecord {
    /// The record in a word as loaded from the map.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
        Self {
            backend: BackendId(u16::from_ne_bytes([a, b])),
            generation: Generation(u16::from_ne_bytes([c, d])),
            last_seen: Tick(u16::from_ne_bytes([e, f])),
            check: u16::from_ne_bytes([g, h]),
        }
    }
}

/// A tuple's check word ([`crate::flow::Tuple`]'s `check`) in 16 bits.
#[inline(always)]
pub const fn fold(check: u32) -> u16 {
    let [a, b, c, d] = check.to_ne_bytes();
    u16::from_ne_bytes([a ^ c, b ^ d])
}

/// The flow tables as one packet sees them: every call is about the packet's own tuple.
pub trait FlowTables {
    /// The generation of a backend, if it is in use and alive.
    fn living(&self, backend: BackendId) -> Option<Generation>;
    /// The flow's record in a table, if there is one and its check is right.
    fn find(&mut self, table: Table) -> Option<FlowRecord>;
    /// Records the flow, and replaces an existing record; the implementation adds the check. Returns whether there was
    /// space.
    fn insert(&mut self, table: Table, record: FlowRecord) -> bool;
    /// Writes `last_seen` of the record that [`Self::find`] found last in this table.
    fn refresh(&mut self, table: Table, now: Tick);
    /// Removes the flow's record from a table.
    fn remove(&mut self, table: Table);
}

/// Handles a packet whose slot returned [`crate::ring_slot::Pick::LookUp`]: looks its flow up, decides, and writes the
/// record. Returns the backend; none if no backend takes new flows. `opens` as in [`RingSlot::decide`]. For packets
/// about a flow (ICMP errors), see [`peek`].
#[inline(always)]
pub fn follow<T: FlowTables>(slot: RingSlot, opens: bool, now: Tick, tables: &mut T) -> BackendId {
    let (found, known) = look_up(tables);
    write(slot.decide(known, opens), found, now, tables)
}

/// Like [`follow`], if every flow is recorded. `slot` is called only for unknown flows.
#[inline(always)]
pub fn follow_all<T: FlowTables>(
    slot: impl FnOnce() -> RingSlot,
    opens: bool,
    now: Tick,
    tables: &mut T,
) -> BackendId {
    let (found, known) = look_up(tables);
    let slot = match known {
        Known::Unknown => slot(),
        Known::Proven(backend) | Known::Unproven(backend) => RingSlot::stable(backend),
    };
    write(slot.decide_recorded(known, opens), found, now, tables)
}

/// Writes the record of a decision about a packet whose flow had the record `found`.
#[inline(always)]
fn write<T: FlowTables>(
    decision: Decision,
    found: Option<(Table, FlowRecord)>,
    now: Tick,
    tables: &mut T,
) -> BackendId {
    let Decision { backend, record } = decision;
    match record {
        Record::Nothing => {}
        Record::Refresh => {
            if let Some((table, flow)) = found
                && flow.last_seen.0 != now.0
            {
                tables.refresh(table, now);
            }
        }
        Record::Proven => {
            // First there, then not here: another packet, or the sweeper, must meet the flow at any time.
            if store(tables, Table::Tracked, backend, now)
                && let Some((table, _)) = found
            {
                tables.remove(table);
            }
        }
        Record::Opening => {
            store(tables, Table::Opening, backend, now);
        }
        Record::Seen => {
            store(tables, Table::Seen, backend, now);
        }
    }
    backend
}

/// As [`follow`], but leaves no trace: where a flow's packets go, for a packet that is not one of them.
#[inline(always)]
pub fn peek<T: FlowTables>(slot: RingSlot, opens: bool, tables: &mut T) -> BackendId {
    slot.decide(look_up(tables).1, opens).backend
}

/// The first living record, and the state of the flow. A dead one does not end the search: the flow may have a newer
/// record elsewhere.
#[inline(always)]
fn look_up<T: FlowTables>(tables: &mut T) -> (Option<(Table, FlowRecord)>, Known) {
    if let Some(flow) = living(tables, Table::Tracked) {
        return (Some((Table::Tracked, flow)), Known::Proven(flow.backend));
    }
    if let Some(flow) = living(tables, Table::Opening) {
        return (Some((Table::Opening, flow)), Known::Unproven(flow.backend));
    }
    if let Some(flow) = living(tables, Table::Seen) {
        return (Some((Table::Seen, flow)), Known::Unproven(flow.backend));
    }
    (None, Known::Unknown)
}

#[inline(always)]
fn living<T: FlowTables>(tables: &mut T, table: Table) -> Option<FlowRecord> {
    let flow = tables.find(table)?;
    (tables.living(flow.backend)?.0 == flow.generation.0).then_some(flow)
}

/// Records the flow, unless its backend is dead, since such a record would count as none.
#[inline(always)]
fn store<T: FlowTables>(tables: &mut T, table: Table, backend: BackendId, now: Tick) -> bool {
    let Some(generation) = tables.living(backend) else {
        return false;
    };
    let record = FlowRecord {
        backend,
        generation,
        last_seen: now,
        check: 0,
    };
    tables.insert(table, record)
}

const _: () = assert!(
    size_of::<FlowRecord>() == 8 && align_of::<FlowRecord>() == 8,
    "read in one load"
);

plain_data!(Tick, FlowRecord);

#[cfg(test)]
mod tests {
    use super::*;

    const A: BackendId = BackendId(1);
    const B: BackendId = BackendId(2);
    const TRANSITION: RingSlot = RingSlot {
        current: B,
        previous: A,
    };
    const NOW: Tick = Tick(7);

    /// One flow's view of the tables, with every backend of generation 1 but the dead ones.
    #[derive(Default)]
    struct One {
        tracked: Option<FlowRecord>,
        opening: Option<FlowRecord>,
        seen: Option<FlowRecord>,
        dead: Option<BackendId>,
        tracked_full: bool,
    }

    impl One {
        fn table(&mut self, table: Table) -> &mut Option<FlowRecord> {
            match table {
                Table::Tracked => &mut self.tracked,
                Table::Opening => &mut self.opening,
                Table::Seen => &mut self.seen,
            }
        }

        fn owners(&self) -> [Option<u16>; 3] {
            [self.tracked, self.opening, self.seen].map(|flow| flow.map(|flow| flow.backend.0))
        }
    }

    impl FlowTables for One {
        fn living(&self, backend: BackendId) -> Option<Generation> {
            (backend != BackendId::NONE && Some(backend) != self.dead).then_some(Generation(1))
        }
        fn find(&mut self, table: Table) -> Option<FlowRecord> {
            *self.table(table)
        }
        fn insert(&mut self, table: Table, record: FlowRecord) -> bool {
            if table == Table::Tracked && self.tracked_full {
                return false;
            }
            *self.table(table) = Some(record);
            true
        }
        fn refresh(&mut self, table: Table, now: Tick) {
            if let Some(flow) = self.table(table) {
                flow.last_seen = now;
            }
        }
        fn remove(&mut self, table: Table) {
            *self.table(table) = None;
        }
    }

    const fn record(backend: BackendId, generation: u16) -> FlowRecord {
        FlowRecord {
            backend,
            generation: Generation(generation),
            last_seen: Tick(1),
            check: 0,
        }
    }

    #[test]
    fn a_new_flow_is_proven_by_the_packet_after_its_syn() {
        let mut flow = One::default();
        for (opens, owners) in [
            (true, [None, Some(2), None]),
            (true, [None, Some(2), None]),
            (false, [Some(2), None, None]),
        ] {
            assert_eq!(follow(TRANSITION, opens, NOW, &mut flow), B);
            assert_eq!(flow.owners(), owners);
        }
    }

    #[test]
    fn an_old_flow_is_proven_by_its_second_packet() {
        let mut flow = One::default();
        for owners in [[None, None, Some(1)], [Some(1), None, None]] {
            assert_eq!(follow(TRANSITION, false, NOW, &mut flow), A);
            assert_eq!(flow.owners(), owners);
        }
    }

    #[test]
    fn a_record_of_a_dead_backend_neither_counts_nor_hides_a_living_one() {
        let mut flow = One {
            tracked: Some(record(A, 1)),
            opening: Some(record(B, 1)),
            dead: Some(A),
            ..One::default()
        };
        assert_eq!(follow(TRANSITION, false, NOW, &mut flow), B);
        assert_eq!(flow.owners(), [Some(2), None, None]);

        let mut flow = One {
            tracked: Some(record(B, 0)),
            ..One::default()
        };
        assert_eq!(follow(TRANSITION, false, NOW, &mut flow), A, "another generation");
    }

    #[test]
    fn a_full_table_leaves_a_flow_where_it_is_recorded() {
        let mut flow = One {
            opening: Some(record(B, 1)),
            tracked_full: true,
            ..One::default()
        };
        assert_eq!(follow(TRANSITION, false, NOW, &mut flow), B);
        assert_eq!(flow.owners(), [None, Some(2), None]);
    }

    #[test]
    fn known_flow_refreshes_its_record() {
        let mut flow = One {
            tracked: Some(record(A, 1)),
            ..One::default()
        };
        follow(TRANSITION, false, NOW, &mut flow);
        assert_eq!(flow.tracked.map(|flow| flow.last_seen), Some(NOW));
    }

    #[test]
    fn where_every_flow_is_recorded_only_a_new_one_takes_a_turn() {
        let mut flow = One::default();
        for (opens, turns, owners) in [
            (true, 1, [None, Some(2), None]),
            (true, 0, [None, Some(2), None]),
            (false, 0, [Some(2), None, None]),
            (false, 0, [Some(2), None, None]),
        ] {
            let mut taken = 0;
            let turn = || {
                taken += 1;
                RingSlot::stable(B)
            };
            assert_eq!(follow_all(turn, opens, NOW, &mut flow), B);
            assert_eq!((taken, flow.owners()), (turns, owners));
        }
    }

    #[test]
    fn asking_about_a_flow_leaves_no_trace() {
        let mut flow = One::default();
        assert_eq!(peek(TRANSITION, false, &mut flow), A);
        assert_eq!(flow.owners(), [None; 3]);
        flow.opening = Some(record(B, 1));
        assert_eq!(peek(TRANSITION, false, &mut flow), B);
        assert_eq!(flow.owners(), [None, Some(2), None]);
    }

    #[test]
    fn ticks_count_seconds_also_when_they_come_round() {
        let wrap = u64::from(TICK_SECS) << 16;
        for (from, to, secs) in [
            (0, 40, 40),
            (wrap - 8, wrap + 8, 16),
            (3, 5, 4),
            (100, 100, 0),
            (100, 96, 0),
            (wrap, wrap - 4, 0),
        ] {
            assert_eq!(Tick::from_secs(from).secs_until(Tick::from_secs(to)), secs);
        }
    }

    #[test]
    fn a_record_survives_the_way_through_its_word() {
        let record = FlowRecord {
            backend: BackendId(0x0102),
            generation: Generation(0x0304),
            last_seen: Tick(0x0506),
            check: 0x0708,
        };
        let halves = [0x0102_u16, 0x0304, 0x0506, 0x0708].map(u16::to_ne_bytes);
        let bytes: Vec<u8> = halves.concat();
        let word = u64::from_ne_bytes(bytes.try_into().unwrap());
        assert_eq!(FlowRecord::from_word(word), record);
    }
}

//! Flows in order: the first ones of a walk, in bounded memory.

use std::{cmp::Ordering, collections::BinaryHeap, net::SocketAddr, ops::ControlFlow};

use crate::{
    api::{error::ApiError, requests::ErrorCode, types::FlowOrder},
    datapath::Flow,
};

/// Flows that are sorted at most.
pub(super) const MAX_SORTED: usize = 100_000;

/// The first flows in an order.
pub(super) struct Sorted {
    order: FlowOrder,
    /// Flows at most.
    limit: usize,
    /// Whether flows beyond the limit are left out.
    leaves_out: bool,
    /// The last one in order is on top.
    heap: BinaryHeap<Entry>,
    has_left_out: bool,
}

struct Entry {
    key: Key,
    flow: Flow,
}

/// Flows with equal first parts stand by client, so that the order is the same each time.
type Key = (u64, SocketAddr, SocketAddr);

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key)
    }
}

impl Sorted {
    /// # Errors
    /// A limit over [`MAX_SORTED`].
    pub(super) fn new(order: FlowOrder, limit: Option<usize>) -> Result<Self, ApiError> {
        if limit.is_some_and(|limit| limit > MAX_SORTED) {
            let what = format!("a sorted list has {MAX_SORTED} flows at most");
            let hint = format!("give --limit {MAX_SORTED} or less");
            return Err(ApiError::new(ErrorCode::Invalid, what, Some(hint)));
        }
        Ok(Self {
            order,
            limit: limit.unwrap_or(MAX_SORTED),
            leaves_out: limit.is_some(),
            heap: BinaryHeap::new(),
            has_left_out: false,
        })
    }

    /// Adds flows; breaks where there are too many to be sorted.
    pub(super) fn add(&mut self, flows: &[Flow]) -> ControlFlow<()> {
        for flow in flows {
            let key = key(self.order, flow);
            if self.heap.len() < self.limit {
                self.heap.push(Entry { key, flow: *flow });
                continue;
            }
            self.has_left_out = true;
            if !self.leaves_out {
                return ControlFlow::Break(());
            }
            if let Some(mut last) = self.heap.peek_mut()
                && key < last.key
            {
                *last = Entry { key, flow: *flow };
            }
        }
        ControlFlow::Continue(())
    }

    /// The flows in order; `None` if there were too many.
    pub(super) fn into_flows(self) -> Option<Vec<Flow>> {
        let is_whole = self.leaves_out || !self.has_left_out;
        is_whole.then(|| {
            let sorted = self.heap.into_sorted_vec().into_iter();
            sorted.map(|entry| entry.flow).collect()
        })
    }
}

fn key(order: FlowOrder, flow: &Flow) -> Key {
    let longest_first = |secs: u32| u64::from(u32::MAX - secs);
    let first = match order {
        FlowOrder::Age => flow.age.map_or(u64::MAX, longest_first),
        FlowOrder::Idle => longest_first(flow.idle),
        FlowOrder::Client => 0,
    };
    (first, flow.client, flow.destination)
}

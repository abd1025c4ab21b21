//! The two directions of NAT flows, put together while a table is read: a look-up of the other direction for each flow is a
//! system call, and takes more time than all the rest. Until the other direction comes, the first one is kept in short.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasher as _, BuildHasherDefault, Hash, Hasher, RandomState},
};

use lb_common::{
    addr::NetPort,
    backend::{BackendId, Generation},
    flow::{FORWARD, NatFlow, Tuple},
};

use super::address::Address;
use crate::half::{Half, half};

/// What both directions of a flow have in common beside the client's tuple: the owner, and the port that the backend sees.
type Mark = (BackendId, Generation, NetPort);

/// The first direction of a flow.
#[derive(Clone, Copy)]
struct First {
    half: Half,
    handshake: u32,
    mark: Mark,
    direction: u8,
}

/// A whole flow.
pub(super) struct Pair<A> {
    /// The tuple of the client's packets.
    pub(super) client: Tuple<A>,
    /// The tuple of the packets to the backend.
    pub(super) to_backend: Tuple<A>,
    pub(super) forward: Half,
    pub(super) reply: Half,
    /// [`NatFlow::handshake`] of the forward entry.
    pub(super) began: u32,
}

/// Flows of which one direction has come, by 64 bits of a keyed hash of the client's tuple, whose collisions no client can choose; by
/// chance two flows of a full table do in one walk of 10^8.
pub(super) struct Pairs {
    /// Secret numbers, odd and different for each walk.
    keys: [u64; 2],
    firsts: HashMap<u64, First, BuildHasherDefault<Hashed>>,
}

impl Pairs {
    pub(super) fn new() -> Self {
        Self {
            // A number from the system's source of randomness, hashed with itself as key.
            keys: [(); 2].map(|()| RandomState::new().hash_one(0) | 1),
            firsts: HashMap::default(),
        }
    }

    /// Takes an entry; gives the flow if its other direction has come before.
    pub(super) fn add<A: Address>(&mut self, tuple: &Tuple<A>, flow: &NatFlow<A>) -> Option<Pair<A>>
    where
        Tuple<A>: Hash,
    {
        let (client, port) = if flow.direction == FORWARD {
            (*tuple, flow.src_port)
        } else {
            (flow.peer(tuple.protocol), tuple.dst_port)
        };
        let mark = (flow.backend, flow.generation, port);
        let mut hasher = Folded::new(self.keys);
        client.hash(&mut hasher);
        let this = First {
            half: half(flow),
            handshake: flow.handshake,
            mark,
            direction: flow.direction,
        };
        // One probe for each entry: the table is larger than the caches.
        let mut kept = match self.firsts.entry(hasher.finish()) {
            Entry::Vacant(place) => {
                place.insert(this);
                return None;
            }
            Entry::Occupied(kept) => kept,
        };
        let other = *kept.get();
        if other.direction == this.direction || other.mark != mark {
            // A reply entry that remains from before the flow moved to another backend makes room for a later one.
            if other.direction != FORWARD && other.half.last_seen <= this.half.last_seen {
                kept.insert(this);
            }
            return None;
        }
        kept.remove();
        let is_forward = this.direction == FORWARD;
        let (forward, reply) = if is_forward { (this, other) } else { (other, this) };
        let to_backend = if is_forward {
            Tuple::new(flow.src, flow.dst, flow.src_port, flow.dst_port, tuple.protocol)
        } else {
            Tuple::new(
                tuple.dst,
                tuple.src,
                tuple.dst_port,
                tuple.src_port,
                tuple.protocol,
            )
        };
        Some(Pair {
            client,
            to_backend,
            forward: forward.half,
            reply: reply.half,
            began: forward.handshake,
        })
    }
}

/// A keyed hash by multiplications to 128 bits whose halves are folded, as wyhash and foldhash have it: a tuple has few words, for
/// which the standard library's hash takes a tenth of a walk.
struct Folded {
    state: u64,
    key: u64,
}

impl Folded {
    const fn new([state, key]: [u64; 2]) -> Self {
        Self { state, key }
    }

    #[expect(clippy::cast_possible_truncation, reason = "a half is meant")]
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(self.key);
        self.state = (product as u64) ^ ((product >> u64::BITS) as u64);
        self.key = self.key.rotate_left(23);
    }
}

impl Hasher for Folded {
    fn finish(&self) -> u64 {
        self.state
    }

    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(size_of::<u64>()) {
            let mut word = [0; size_of::<u64>()];
            word.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
            self.mix(u64::from_ne_bytes(word));
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.mix(number.into());
    }

    fn write_u16(&mut self, number: u16) {
        self.mix(number.into());
    }

    fn write_u32(&mut self, number: u32) {
        self.mix(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        self.mix(number);
    }

    fn write_usize(&mut self, number: usize) {
        self.mix(number as u64);
    }
}

/// A hash that is one already.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use lb_common::{
        addr::NetV4,
        flow::{NatFlowV4, PROVEN, REPLY, TupleV4},
        service::TCP,
    };

    use super::*;

    /// The entries of a flow of one client through source port `port`.
    fn entries(port: u16) -> [(TupleV4, NatFlowV4); 2] {
        let address = |last: u8| NetV4::from(std::net::Ipv4Addr::new(10, 0, 0, last));
        let tuple = TupleV4::new(
            address(9),
            address(1),
            NetPort::new(40_000),
            NetPort::new(80),
            TCP,
        );
        let forward = NatFlowV4 {
            src: address(2),
            dst: address(3),
            src_port: NetPort::new(port),
            dst_port: NetPort::new(8080),
            backend: BackendId(1),
            direction: FORWARD,
            last_seen: 5,
            handshake: 7,
            ..NatFlowV4::default()
        };
        let reply = NatFlowV4 {
            src: tuple.dst,
            dst: tuple.src,
            src_port: tuple.dst_port,
            dst_port: tuple.src_port,
            direction: REPLY,
            state: PROVEN,
            last_seen: 6,
            handshake: 8,
            ..forward
        };
        [(tuple, forward), (forward.peer(TCP), reply)]
    }

    #[test]
    fn both_directions_make_a_flow_whichever_comes_first() {
        let [forward, reply] = entries(1_024);
        for [first, second] in [[forward, reply], [reply, forward]] {
            let mut pairs = Pairs::new();
            assert!(pairs.add(&first.0, &first.1).is_none());
            let pair = pairs.add(&second.0, &second.1).unwrap();
            assert_eq!(pair.client, forward.0);
            assert_eq!(
                (pair.to_backend.src, pair.to_backend.dst),
                (forward.1.src, forward.1.dst)
            );
            assert_eq!(pair.to_backend.src_port.get(), 1_024);
            assert_eq!(
                (pair.forward.last_seen, pair.reply.last_seen, pair.began),
                (5, 6, 7)
            );
            assert!(pairs.firsts.is_empty(), "nothing is kept of a whole flow");
        }
    }

    /// The flow has moved: a reply entry of its old port may still be there.
    #[test]
    fn a_reply_entry_of_another_port_is_of_no_flow() {
        let [forward, reply] = entries(1_024);
        let [_, mut old] = entries(1_025);
        old.1.last_seen = reply.1.last_seen - 1;
        for order in [
            [old, forward, reply],
            [forward, old, reply],
            [old, reply, forward],
            [reply, old, forward],
        ] {
            let mut pairs = Pairs::new();
            let found = order.map(|(tuple, flow)| pairs.add(&tuple, &flow).is_some());
            assert_eq!(found, [false, false, true]);
        }
    }
}

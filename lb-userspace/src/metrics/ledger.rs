//! Counters that never go back: what the maps count under ids, carried over to what the operator calls by name.
//!
//! A backend that moves to another address gets another id, whose counters begin at 0; a service that moves to
//! another port likewise. The ledger keeps what the name had counted before and adds to it.

use std::collections::{BTreeMap, btree_map::Entry};

use lb_common::counters::Traffic;

/// Something that the kernel counts.
pub(super) trait Count: Copy + Default {
    /// The sum.
    fn plus(self, other: Self) -> Self;
    /// Whether this is less than `before`, so that counting began anew in between.
    fn began_anew(&self, before: &Self) -> bool;
}

impl Count for u64 {
    fn plus(self, other: Self) -> Self {
        self + other
    }

    fn began_anew(&self, before: &Self) -> bool {
        self < before
    }
}

impl Count for Traffic {
    fn plus(self, other: Self) -> Self {
        let Self {
            packets,
            bytes,
            new_flows,
            reply_packets,
            reply_bytes,
        } = other;
        Self {
            packets: self.packets + packets,
            bytes: self.bytes + bytes,
            new_flows: self.new_flows + new_flows,
            reply_packets: self.reply_packets + reply_packets,
            reply_bytes: self.reply_bytes + reply_bytes,
        }
    }

    fn began_anew(&self, before: &Self) -> bool {
        self.packets < before.packets
            || self.new_flows < before.new_flows
            || self.reply_packets < before.reply_packets
    }
}

/// Counters by name. `N` is the name, `I` what the kernel counts under: when it changes, its counters begin anew.
#[derive(Debug)]
pub(super) struct Ledger<N, I, C> {
    accounts: BTreeMap<N, Account<I, C>>,
}

#[derive(Debug)]
struct Account<I, C> {
    identity: I,
    /// What former identities counted.
    before: C,
    /// What the present one had counted when last seen.
    last: C,
}

impl<N, I, C> Default for Ledger<N, I, C> {
    fn default() -> Self {
        Self {
            accounts: BTreeMap::new(),
        }
    }
}

impl<N: Ord, I: PartialEq, C: Count> Ledger<N, I, C> {
    /// Notes what the kernel counts for `name` now, `None` where it does not count it, and returns the name's total
    /// since the daemon first saw it.
    pub(super) fn note(&mut self, name: N, identity: I, now: Option<C>) -> C {
        let Some(now) = now else {
            let account = self.accounts.get(&name);
            return account.map_or_else(C::default, |account| account.before.plus(account.last));
        };
        match self.accounts.entry(name) {
            Entry::Vacant(vacant) => {
                vacant.insert(Account {
                    identity,
                    before: C::default(),
                    last: now,
                });
                now
            }
            Entry::Occupied(mut occupied) => {
                let account = occupied.get_mut();
                if account.identity != identity || now.began_anew(&account.last) {
                    account.before = account.before.plus(account.last);
                    account.identity = identity;
                }
                account.last = now;
                account.before.plus(now)
            }
        }
    }

    /// Forgets names that are gone for good. One that comes back later starts at 0, as a new series does.
    pub(super) fn keep(&mut self, wanted: impl Fn(&N) -> bool) {
        self.accounts.retain(|name, _| wanted(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(n: u64) -> Traffic {
        Traffic {
            packets: n,
            bytes: 100 * n,
            ..Traffic::default()
        }
    }

    #[test]
    fn a_total_goes_on_when_the_kernel_counts_anew() {
        let mut ledger = Ledger::default();
        // (identity, what the kernel counts, what the operator sees)
        for (identity, now, total) in [
            ("10.0.0.1:80", None, 0),
            ("10.0.0.1:80", Some(10), 10),
            ("10.0.0.1:80", Some(15), 15),
            ("10.0.0.2:80", None, 15),
            ("10.0.0.2:80", Some(20), 35),
            ("10.0.0.2:80", Some(3), 38),
            ("10.0.0.2:80", Some(4), 39),
        ] {
            let seen = ledger.note("web-1", identity, now.map(packets));
            assert_eq!(
                (seen.packets, seen.bytes),
                (total, 100 * total),
                "{identity} {now:?}"
            );
        }
    }

    #[test]
    fn a_forgotten_name_starts_at_zero_and_leaves_others_alone() {
        let mut ledger = Ledger::default();
        ledger.note("a", 1, Some(5_u64));
        ledger.note("b", 1, Some(5));
        ledger.keep(|name| *name == "b");
        assert_eq!(ledger.note("a", 2, Some(1)), 1);
        assert_eq!(ledger.note("b", 2, Some(1)), 6);
    }
}

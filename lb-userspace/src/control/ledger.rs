//! Counters that never decrease: counts of the maps by id, carried over to the operator's names.
//!
//! A backend that moves to another address gets another id, whose counters begin at 0; a service that moves to
//! another port likewise. The ledger keeps the earlier count of the name and adds to it.

use std::{collections::BTreeMap, mem};

use lb_common::counters::{Signals, Traffic};

/// Something that the kernel counts.
pub(super) trait Count: Copy + Default + PartialEq {
    /// The sum.
    fn plus(self, other: Self) -> Self;
    /// Whether this is less than `before`: the counter was reset in between.
    fn was_reset(&self, before: &Self) -> bool;
}

impl Count for u64 {
    fn plus(self, other: Self) -> Self {
        self + other
    }

    fn was_reset(&self, before: &Self) -> bool {
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

    fn was_reset(&self, before: &Self) -> bool {
        self.packets < before.packets
            || self.new_flows < before.new_flows
            || self.reply_packets < before.reply_packets
    }
}

impl Count for Signals {
    fn plus(self, other: Self) -> Self {
        let Self {
            unanswered,
            refused,
            unreachable,
        } = other;
        Self {
            unanswered: self.unanswered + unanswered,
            refused: self.refused + refused,
            unreachable: self.unreachable + unreachable,
        }
    }

    fn was_reset(&self, before: &Self) -> bool {
        self.total() < before.total()
    }
}

/// Counters by name. `N` is the name, `I` the kernel's identity; a name may have several at a time, while flows of a
/// moved backend finish at its old address.
#[derive(Debug)]
pub(super) struct Ledger<N, I, C> {
    accounts: BTreeMap<N, Account<I, C>>,
}

#[derive(Debug)]
struct Account<I, C> {
    /// The sum of identities that are not counted any more.
    past: C,
    /// The kernel's last counts. Nearly always one element: a map for each name would take ten times the memory.
    present: Vec<(I, C)>,
}

impl<N, I, C> Default for Ledger<N, I, C> {
    fn default() -> Self {
        Self {
            accounts: BTreeMap::new(),
        }
    }
}

impl<N: Ord + Clone, I: PartialEq, C: Count> Ledger<N, I, C> {
    /// Records the kernel's present count for `name` under `identity`; `None` if it has none at present.
    pub(super) fn note(&mut self, name: &N, identity: I, now: Option<C>) {
        let account = match self.accounts.get_mut(name) {
            Some(account) => account,
            // Most possible counters are never used.
            None if now.is_none_or(|now| now == C::default()) => return,
            None => self.accounts.entry(name.clone()).or_insert_with(|| Account {
                past: C::default(),
                present: Vec::new(),
            }),
        };
        let Some(now) = now else { return };
        let known = account.present.iter_mut().find(|(known, _)| *known == identity);
        match known {
            Some((_, last)) => {
                let last = mem::replace(last, now);
                if now.was_reset(&last) {
                    account.past = account.past.plus(last);
                }
            }
            None => {
                account.present.reserve_exact(1);
                account.present.push((identity, now));
            }
        }
    }

    /// All that a name has counted since the daemon first saw it.
    pub(super) fn total(&self, name: &N) -> C {
        let Some(Account { past, present }) = self.accounts.get(name) else {
            return C::default();
        };
        present.iter().fold(*past, |sum, (_, count)| sum.plus(*count))
    }

    /// Adds up counts of identities that are no longer `present`, and forgets names that are not `known`. A name that
    /// returns later starts at 0, like a new series.
    pub(super) fn keep(&mut self, known: impl Fn(&N) -> bool, present: impl Fn(&N, &I) -> bool) {
        self.accounts.retain(|name, _| known(name));
        for (name, account) in &mut self.accounts {
            let past = &mut account.past;
            account.present.retain(|(identity, last)| {
                let stays = present(name, identity);
                if !stays {
                    *past = past.plus(*last);
                }
                stays
            });
        }
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
    fn total_continues_when_the_kernel_counter_resets() {
        let mut ledger = Ledger::default();
        // (identity, the kernel's count, whether the other identity is settled, the operator's total)
        for (identity, now, settle, total) in [
            ("10.0.0.1:80", None, false, 0),
            ("10.0.0.1:80", Some(10), false, 10),
            ("10.0.0.1:80", Some(15), false, 15),
            ("10.0.0.2:80", None, false, 15),
            ("10.0.0.2:80", Some(20), false, 35),
            ("10.0.0.1:80", Some(16), false, 36),
            ("10.0.0.2:80", Some(21), true, 37),
            ("10.0.0.1:80", Some(20), false, 57),
            ("10.0.0.1:80", Some(3), false, 60),
            ("10.0.0.1:80", Some(4), false, 61),
        ] {
            ledger.note(&"web-1", identity, now.map(packets));
            if settle {
                ledger.keep(|_| true, |_, present| *present == identity);
            }
            let seen = ledger.total(&"web-1");
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
        ledger.note(&"a", 1, Some(5_u64));
        ledger.note(&"b", 1, Some(5));
        ledger.keep(|name| *name == "b", |_, _| false);
        ledger.note(&"a", 2, Some(1));
        ledger.note(&"b", 2, Some(1));
        assert_eq!((ledger.total(&"a"), ledger.total(&"b")), (1, 6));
    }
}

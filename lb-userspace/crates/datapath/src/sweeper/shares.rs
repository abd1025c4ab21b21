//! Shares of the flow table ([`lb_common::share`]): how many flows each service may open until the next sweep.

use lb_common::limits::MAX_FLOWS;

/// Flows that fit a family's table.
const CAPACITY: u64 = (MAX_FLOWS / 2) as u64;
/// The part of it for all services: the rest is for services with few flows.
const FOR_ALL: u64 = CAPACITY / 8 * 7;

/// How many flows each service may open until the next sweep; `used` has the flows of each now.
///
/// Each may always have an equal share. Beyond that, each may take a quarter of what is free, so that four services that are
/// flooded at once leave room for the others; where more are over their share, they share it.
pub(super) fn allowances(used: &[u64]) -> Vec<u64> {
    let services = used.len() as u64;
    let fair = FOR_ALL / services.max(1);
    let total: u64 = used.iter().sum();
    let more = used.iter().filter(|used| **used > fair).count() as u64;
    let free = FOR_ALL.saturating_sub(total) / more.max(services.min(4)).max(1);
    used.iter()
        .map(|used| fair.saturating_sub(*used).max(free))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_alone_may_use_nearly_all() {
        assert_eq!(allowances(&[0]), [FOR_ALL]);
        assert_eq!(allowances(&[FOR_ALL - 5]), [5]);
        assert_eq!(allowances(&[CAPACITY]), [0]);
    }

    #[test]
    fn services_over_their_share_share_what_is_free() {
        let over = FOR_ALL / 10 + 1;
        let used = [over, over, over, over, over, over, over, over, 0, 0];
        let more: u64 = allowances(&used)[..8].iter().sum();
        assert!(8 * over + more <= FOR_ALL, "{more}");
    }

    /// A service can always open its guaranteed share of flows, also if others use all that they may.
    #[test]
    fn services_with_few_flows_always_find_room() {
        for flooded in 1..=4_usize {
            let mut used = vec![0; 10];
            // Each uses all that it may, sweep after sweep.
            for _ in 0..100 {
                let may = allowances(&used);
                for service in 0..flooded {
                    used[service] += may[service];
                }
            }
            let total: u64 = used.iter().sum();
            assert!(total <= CAPACITY, "{flooded}: {total} flows");
            let left = CAPACITY - total;
            assert!(left >= CAPACITY / 8, "{flooded}: room for {left} flows");
            let may = allowances(&used);
            assert!(
                may[flooded..].iter().all(|may| *may >= FOR_ALL / 10),
                "{flooded}: {may:?}"
            );
        }
    }
}

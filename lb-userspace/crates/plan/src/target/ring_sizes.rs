//! Sizes that automatic rings keep while backends come and go.

use std::collections::BTreeMap;

use super::{
    content::Target,
    desired::Desired,
    service::{RingSize, ServiceKey},
};
use crate::ring;

/// The sizes of automatic rings, by service.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RingSizes(BTreeMap<ServiceKey, u32>);

impl RingSizes {
    /// Sizes that rings have already.
    pub fn inherited(sizes: impl IntoIterator<Item = (ServiceKey, u32)>) -> Self {
        Self(sizes.into_iter().collect())
    }

    /// `wanted`, which follows from `desired`, with rings that keep the size they have where it still does.
    pub fn keep(&mut self, mut wanted: Target, desired: &Desired) -> Target {
        self.0.retain(|key, _| wanted.services.contains_key(key));
        for service in desired.services.values() {
            let Some(there) = wanted.services.get_mut(&service.key) else {
                continue;
            };
            if service.ring_size == RingSize::Auto {
                let current = self.0.get(&service.key).copied();
                let size = ring::auto_size(service.backends.len(), current);
                // An unchanged service stays shared.
                if there.ring_size != size {
                    there.ring_size = size;
                }
            }
            self.0.insert(service.key, there.ring_size);
        }
        wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        state::testing,
        target::effective::{self, HealthView, RemovedBackends},
    };

    /// How many backends there are, and the size of the ring then.
    #[test]
    fn backend_that_comes_and_goes_does_not_resize_the_ring() {
        let desired = |backends: u16| {
            let names: Vec<String> = (0..backends).map(|n| format!("b{n}")).collect();
            let backends: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
            testing::desired([testing::service("web", 1, &backends)])
        };
        let size = |sizes: &mut RingSizes, backends| {
            let desired = desired(backends);
            let target = effective::target(&desired, &HealthView::new(), &RemovedBackends::new());
            let kept = sizes.keep(target, &desired);
            kept.services.values().next().unwrap().ring_size
        };
        let mut sizes = RingSizes::default();
        for (backends, expected) in [
            (10, 1_021),
            (11, 4_093),
            (10, 4_093),
            (11, 4_093),
            (6, 1_021),
            (10, 1_021),
        ] {
            assert_eq!(size(&mut sizes, backends), expected, "{backends}");
        }
        let none = testing::desired([]);
        let target = effective::target(&none, &HealthView::new(), &RemovedBackends::new());
        sizes.keep(target, &none);
        assert_eq!(
            sizes,
            RingSizes::default(),
            "the size of a removed service is forgotten"
        );
        // The next daemon continues with the sizes that it finds.
        let key = testing::service("web", 1, &[]).key;
        assert_eq!(size(&mut RingSizes::inherited([(key, 4_093)]), 10), 4_093);
    }
}

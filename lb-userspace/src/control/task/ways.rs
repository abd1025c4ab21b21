//! How backends are reached, taken up.

use std::sync::Arc;

use super::ControlTask;
use crate::{
    clock::now,
    control::{ports::ProgramTarget, reach::News, verdicts},
    events::EventKind,
    health::CheckId,
};

impl<P: ProgramTarget> ControlTask<P> {
    /// Takes flows from backends that cannot be reached, and returns them when they can.
    pub(super) async fn follow_ways(&mut self) {
        let ways = Arc::clone(&self.inbox.ways.borrow_and_update());
        let before = self.reach.blocked(now());
        let news = self.reach.update(&ways, now());
        for news in &news {
            let (address, message) = match news {
                News::Blocked(address, error) => (address, format!("cannot be reached: {error}")),
                News::Free(address) => (address, "can be reached again".to_owned()),
            };
            let backends = verdicts::backends(&self.desired);
            for (CheckId(service, name), ..) in backends.filter(|(.., there)| there.address.ip() == *address)
            {
                tracing::warn!(%service, backend = %name, "{message}");
                self.event(EventKind::Reach, Some((service, Some(name))), message.clone());
            }
        }
        if !news.is_empty() || before != self.reach.blocked(now()) {
            self.converge().await;
            self.publish();
        }
    }
}

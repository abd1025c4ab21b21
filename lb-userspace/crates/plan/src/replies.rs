//! The service of each endpoint of mode `dnat`.

use std::{collections::BTreeMap, net::SocketAddr};

use lb_common::{backend::BackendId, service::ServiceId};

use crate::{
    programmed::{Endpoint, Programmed, ReplyTarget},
    state::service::ServiceKey,
    step::Step,
};

/// The endpoints of a target.
#[derive(Default)]
pub(super) struct Replies(BTreeMap<Endpoint, ReplyTarget>);

impl Replies {
    /// Adds a backend. A valid desired state never gives two services one endpoint, so the order only has to be stable.
    pub(super) fn add(&mut self, key: ServiceKey, service: ServiceId, from: SocketAddr, backend: BackendId) {
        let endpoint = Endpoint::new(from.ip(), from.port(), key.protocol);
        self.0.entry(endpoint).or_insert(ReplyTarget {
            address: key.address,
            port: key.port,
            service,
            backend,
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Steps that write missing endpoints.
    pub(super) fn writes(&self, programmed: &Programmed) -> impl Iterator<Item = Step> {
        let replies = self.0.iter();
        let new = replies.filter(|(endpoint, reply)| programmed.replies.get(endpoint) != Some(reply));
        new.map(|(endpoint, reply)| Step::WriteReply {
            endpoint: *endpoint,
            reply: *reply,
        })
    }

    /// Steps that remove unused endpoints.
    pub(super) fn removals(&self, programmed: &Programmed) -> impl Iterator<Item = Step> {
        let there = programmed.replies.keys();
        let gone = there.filter(|endpoint| !self.0.contains_key(endpoint));
        gone.map(|endpoint| Step::RemoveReply { endpoint: *endpoint })
    }
}

//! Why a target cannot be programmed.

use lb_common::limits::{MAX_BACKENDS, MAX_GUARD_PREFIXES, MAX_SERVICES, MAX_SNAT_ADDRESSES};
use lb_model::state::service::ServiceKey;

use crate::ring::RingError;

/// Why a target cannot be programmed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PlanError {
    /// More than the service maps hold.
    #[error("{0} services, counted with their further ports, are more than the {MAX_SERVICES} that fit")]
    TooManyServices(usize),
    /// More than there are backend ids.
    #[error("{0} backends are more than the {max} that fit", max = MAX_BACKENDS - 1)]
    TooManyBackends(usize),
    /// More source NAT addresses of one family than fit.
    #[error("{0} source NAT addresses of one family are more than the {MAX_SNAT_ADDRESSES} that fit")]
    TooManySnatAddresses(usize),
    /// More prefixes of clients than the guards of all services may have.
    #[error("{0} prefixes in guards are more than the {MAX_GUARD_PREFIXES} that fit")]
    TooManyPrefixes(usize),
    /// More configurations of QUIC connection ids than fit.
    #[error("{0} [[service.quic]] tables are more than the {max} that fit", max = lb_common::limits::MAX_QUIC_CONFIGS)]
    TooManyQuicConfigs(usize),
    /// More server ids than fit.
    #[error("{0} server_ids are more than the {max} that fit", max = lb_common::limits::MAX_QUIC_SERVERS)]
    TooManyQuicServers(usize),
    /// No id is free, even after all removals.
    #[error("no free {of} id")]
    IdsExhausted {
        /// The kind of the id.
        of: &'static str,
    },
    /// A service's ring cannot be built.
    #[error("ring of the service on {}", .key.address_text())]
    Ring {
        /// The service.
        key: ServiceKey,
        /// Why.
        #[source]
        source: RingError,
    },
}

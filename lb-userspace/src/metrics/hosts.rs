//! Host names of backends, as a family of their own.

use super::text::{Kind, Text};
use crate::discovery::HostStatuses;

/// The family of all host names.
pub(super) fn render(text: &mut Text, hosts: &HostStatuses) {
    let mut family = text.family(
        "lb_host_resolved",
        Kind::Gauge,
        "1: the latest look-up of the backend's host name was answered, 0: it failed; its last answer stays in force",
    );
    for ((service, backend), status) in hosts {
        let labels = [("service", service.as_str()), ("backend", backend.as_str())];
        family.sample(&labels, u8::from(status.is_resolved()));
    }
}

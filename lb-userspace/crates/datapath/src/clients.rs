//! Prefixes of clients that go to groups of backends, as the map has them.

use std::io;

use lb_common::{addr::NetAddr, guard::PrefixKey, service::ServiceId};

use super::maps::Maps;
use crate::{plan::Programmed, state::guard::Prefix};

/// Bits before an IPv4 address in a [`NetAddr`].
const BEFORE_V4: u32 = PrefixKey::ADDRESS - u32::BITS;

/// The key of a prefix of a service's clients.
pub(super) fn key(service: ServiceId, prefix: &Prefix) -> PrefixKey {
    let address = prefix.address();
    let before = if address.is_ipv4() { BEFORE_V4 } else { 0 };
    PrefixKey::new(
        service,
        NetAddr::from(address),
        before + u32::from(prefix.length()),
    )
}

/// The prefix of a key; `None` of a key that no daemon writes.
fn prefix(key: &PrefixKey) -> Option<Prefix> {
    let address = key.address.to_ip();
    let before = if address.is_ipv4() { BEFORE_V4 } else { 0 };
    let length = key.address_bits().checked_sub(before)?;
    Some(Prefix::around(address, u8::try_from(length).ok()?))
}

/// Reads back what an earlier daemon wrote.
pub(super) fn read_back(maps: &Maps, programmed: &mut Programmed) -> io::Result<()> {
    maps.client_rings.for_each(|key, ring| {
        if let Some(prefix) = prefix(&key) {
            let clients = programmed.clients.entry(key.service).or_default();
            clients.insert(prefix, ring);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_that_of_one_prefix() {
        for text in [
            "10.0.0.0/8",
            "0.0.0.0/0",
            "192.0.2.7/32",
            "2001:db8::/32",
            "::/0",
            "2001:db8::1/128",
        ] {
            let written: Prefix = text.parse().unwrap();
            assert_eq!(prefix(&key(ServiceId(7), &written)), Some(written));
        }
    }
}

//! Filters by number.

use lb_common::backend::Generation;

use super::*;
use crate::{directory::BackendEntry, state::service::Protocol};

#[test]
fn a_prefix_masks_its_own_bits_of_either_family() {
    let cases = [
        ("192.0.2.7", 24, ["192.0.2.1", "192.0.2.255"], "192.0.3.1"),
        ("192.0.2.7", 32, ["192.0.2.7", "192.0.2.7"], "192.0.2.6"),
        (
            "2001:db8::1",
            32,
            ["2001:db8::", "2001:db8:ffff::1"],
            "2001:db9::1",
        ),
        (
            "2001:db8::1",
            47,
            ["2001:db8:0::", "2001:db8:1::1"],
            "2001:db8:2::1",
        ),
        ("0.0.0.0", 0, ["10.0.0.1", "255.255.255.255"], "2001:db8::1"),
    ];
    for (prefix, length, inside, outside) in cases {
        let parse = |text: &str| text.parse::<IpAddr>().unwrap();
        let mask = mask(parse(prefix), length);
        let masked = |text: &str| {
            let address = NetAddr::from(parse(text));
            std::array::from_fn::<u32, 4, _>(|word| address.0[word] & mask.0[word])
        };
        for address in inside {
            assert_eq!(masked(address), masked(prefix), "{address} in {prefix}/{length}");
        }
        assert_ne!(masked(outside), masked(prefix), "{outside} in {prefix}/{length}");
    }
}

#[test]
fn parts_of_the_allowance_add_up_to_the_rate() {
    for rate in [1, 3, 9, 10, 15, 19, 1_000, 1_001, 100_000] {
        let (part, every) = parts(rate);
        let each_second = u128::from(part) * Duration::from_secs(1).as_nanos() / every.as_nanos();
        assert_eq!(each_second, rate.into(), "{part} each {every:?}");
        assert!(
            rate < PARTS || every < Duration::from_millis(200),
            "{rate}: {every:?}"
        );
    }
}

fn key(last: u8) -> ServiceKey {
    ServiceKey::new([192, 0, 2, last].into(), 80, Protocol::Tcp)
}

fn wanted(places: Places) -> MonitorFilter {
    MonitorFilter {
        reasons: Reason::ALL.to_vec(),
        places,
        client: None,
        sample: 1,
        rate: 1,
    }
}

fn directory(service: (u16, u8), backends: &[(u16, u16)]) -> Directory {
    let (id, last) = service;
    let entry = |(id, port): &(u16, u16)| BackendEntry {
        id: BackendId(*id),
        generation: Generation(0),
        alive: true,
        service: key(last),
        address: ([10, 0, 0, 1], *port).into(),
    };
    Directory {
        services: [(ServiceId(id), key(last))].into(),
        backends: backends.iter().map(entry).collect(),
        ..Directory::default()
    }
}

/// Numbers that are free are given out again.
#[test]
fn numbers_are_those_that_the_wanted_places_have_now() {
    let address = SocketAddr::from(([10, 0, 0, 1], 80));
    let of_service = wanted(Places {
        service: Some(key(1)),
        backends: None,
    });
    let of_backend = wanted(Places {
        service: None,
        backends: Some([(key(1), address)].into()),
    });
    for (directory, service, backend) in [
        (directory((1, 1), &[(1, 80), (2, 81)]), Some(1), Some(1)),
        (directory((3, 1), &[(1, 81), (5, 80)]), Some(3), Some(5)),
        (directory((1, 1), &[(1, 81)]), Some(1), None),
        (directory((1, 2), &[(1, 80)]), None, None),
    ] {
        let found = numbers(&of_service, &directory).ok();
        assert_eq!(found.map(|filter| filter.service.0), service);
        let found = numbers(&of_backend, &directory).ok();
        let ids = found.map(|filter| (filter.backend_count, filter.backends[0].0));
        assert_eq!(ids, backend.map(|id| (1, id)));
    }
}

#[test]
fn packets_of_another_service_or_backend_are_not_wanted() {
    let address = SocketAddr::from(([10, 0, 0, 1], 80));
    let other = SocketAddr::from(([10, 0, 0, 1], 81));
    let places = Places {
        service: Some(key(1)),
        backends: Some([(key(1), address)].into()),
    };
    assert!(places.want(Some(key(1)), Some(address)));
    assert!(!places.want(Some(key(2)), Some(address)));
    assert!(!places.want(Some(key(1)), Some(other)));
    assert!(!places.want(None, None));
    assert!(Places::default().want(None, None));
}

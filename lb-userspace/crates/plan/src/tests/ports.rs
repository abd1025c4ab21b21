//! Services with several ports: each is a key of its own in the maps, and all of them one service.

use super::*;

fn with_ports(first: u16, more: &[u16]) -> (ServiceKey, TargetService) {
    let service = TargetService {
        more_ports: more.to_vec(),
        ..service(251, [(1, backend(1))])
    };
    (key(1, first), service)
}

/// Ports, with the number of each one's service, and whether it is the service's own key.
fn ports(programmed: &Programmed) -> BTreeMap<u16, (ServiceId, bool)> {
    let own = programmed
        .services
        .iter()
        .map(|(key, record)| (key.port, (record.id, true)));
    let more = programmed
        .aliases
        .iter()
        .map(|(key, record)| (key.port, (record.id, false)));
    own.chain(more).collect()
}

#[test]
fn all_ports_of_a_service_have_its_record_and_follow_its_changes() {
    let (mut programmed, mut number) = (Programmed::default(), None);
    for more in [&[443, 8000, 8001][..], &[443], &[], &[8000]] {
        for size in [251, 503] {
            let (key, mut service) = with_ports(80, more);
            service.ring_size = size;
            converge(&target([(key, service)]), &mut programmed);
            let record = programmed.services[&key];
            assert_eq!(record.alias, 0);
            let expected: BTreeMap<ServiceKey, ServiceRecord> = more
                .iter()
                .map(|port| {
                    (
                        ServiceKey { port: *port, ..key },
                        ServiceRecord { alias: 1, ..record },
                    )
                })
                .collect();
            assert_eq!(programmed.aliases, expected);
            // The flows of a service stay when further ports come and go.
            assert_eq!(
                (record.id, record.ring_size),
                (*number.get_or_insert(record.id), size)
            );
        }
    }
    converge(&target([]), &mut programmed);
    assert!(programmed.services.is_empty() && programmed.aliases.is_empty());
}

#[test]
fn a_port_that_moves_between_services_is_of_one_of_them_at_any_time() {
    let two = |a: (u16, &[u16]), b: (u16, &[u16])| target([with_ports(a.0, a.1), with_ports(b.0, b.1)]);
    let mut programmed = Programmed::default();
    for (services, expected) in [
        (
            two((80, &[443]), (25, &[])),
            [(80, true), (443, false), (25, true)],
        ),
        (
            two((80, &[]), (25, &[443])),
            [(80, true), (443, false), (25, true)],
        ),
        (
            two((80, &[25]), (443, &[])),
            [(80, true), (443, true), (25, false)],
        ),
        (
            two((80, &[443]), (25, &[])),
            [(80, true), (443, false), (25, true)],
        ),
        (
            two((443, &[80]), (25, &[])),
            [(80, false), (443, true), (25, true)],
        ),
    ] {
        converge(&services, &mut programmed);
        let ports = ports(&programmed);
        let found = expected.map(|(port, _)| (port, ports[&port].1));
        assert_eq!((found, ports.len()), (expected, 3));
        let of = |key: &ServiceKey| programmed.services[key].id;
        for (key, service) in &services.services {
            assert!(service.more_ports.iter().all(|port| ports[port].0 == of(key)));
        }
        assert_eq!(
            programmed
                .services
                .values()
                .map(|record| record.id)
                .collect::<BTreeSet<_>>()
                .len(),
            2
        );
    }
}

/// An unchanged service is not examined again, and must keep its ports.
#[test]
fn a_service_that_is_the_same_keeps_its_ports() {
    let (mut planner, mut programmed) = (Planner::default(), Programmed::default());
    let same = target([with_ports(80, &[443])]);
    for _ in 0..3 {
        let steps = planner.plan(&same, &programmed).unwrap();
        steps.iter().for_each(|step| programmed.apply(step));
        assert_eq!(programmed.aliases.len(), 1, "{steps:?}");
    }
}

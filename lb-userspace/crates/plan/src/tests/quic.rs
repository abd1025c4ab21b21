//! Connection ids of QUIC in plans.

use lb_common::{
    limits::{MAX_QUIC_CONFIGS, MAX_QUIC_SERVERS},
    quic::{Config, ConfigKey, ServerKey},
    service::QUIC,
};

use super::*;

fn config(id: u8) -> Config {
    Config::new(id, 3, 4, None).unwrap()
}

fn named_by(config: &Config, last: u8) -> ServerKey {
    config.key_of(ServiceId::default(), &[1, 2, last]).unwrap()
}

/// A service with these backends and configurations, whose backends `named` have an id each.
fn quic(backends: &[u8], named: &[u8], ids: &[u8]) -> Target {
    let configs: Vec<_> = ids.iter().map(|id| config(*id)).collect();
    let keys = |last: u8| {
        configs
            .iter()
            .map(|config| named_by(config, last))
            .collect::<Vec<_>>()
    };
    let servers = named.iter().map(|last| (address(*last), keys(*last))).collect();
    target([(
        key(1, 80),
        TargetService {
            more_ports: Vec::new(),
            shares_address: false,
            quic: (!ids.is_empty()).then_some(TargetQuic { configs, servers }),
            ..service(251, backends.iter().map(|last| (*last, backend(1))))
        },
    )])
}

/// Configuration ids and names, with the last byte of the backends' addresses.
fn programmed_names(programmed: &Programmed) -> (Vec<u8>, Vec<(u8, u8)>) {
    let service = programmed.services.values().next().unwrap().id;
    let (configs, servers) = (&programmed.quic.configs, &programmed.quic.servers);
    assert!(
        configs
            .iter()
            .all(|(key, config)| *key == ConfigKey::new(service, config.id()))
    );
    let named = servers.iter().map(|(key, backend)| {
        let SocketAddr::V4(address) = programmed.backends[backend].address else {
            panic!("a backend of another family");
        };
        let last = address.ip().octets()[3];
        let own = named_by(&config(key.config), last);
        assert_eq!(*key, ServerKey { service, ..own });
        (key.config, last)
    });
    (configs.values().map(Config::id).collect(), named.collect())
}

#[test]
fn a_connection_id_names_a_backend_that_is_there_for_as_long_as_it_does() {
    let mut programmed = Programmed::default();
    let steps = converge(&quic(&[1, 2], &[1, 2], &[0]), &mut programmed);
    assert_eq!(
        names(&steps),
        [
            "settings", "backend", "backend", "quic", "server", "server", "ring", "service"
        ]
    );
    assert!(programmed.services.values().all(|service| service.has(QUIC)));
    assert_eq!(programmed_names(&programmed), (vec![0], vec![(0, 1), (0, 2)]));
    let steps = converge(&quic(&[2], &[2], &[0]), &mut programmed);
    assert_eq!(names(&steps), ["ring", "-server", "barrier", "-backend"]);
    assert_eq!(programmed_names(&programmed), (vec![0], vec![(0, 2)]));
    let steps = converge(&quic(&[2], &[], &[]), &mut programmed);
    assert_eq!(names(&steps), ["service", "-server", "-quic"]);
    assert_eq!(programmed.quic, ProgrammedQuic::default());
}

#[test]
fn a_new_configuration_stands_beside_the_old_one_until_that_goes() {
    let mut programmed = Programmed::default();
    converge(&quic(&[1], &[1], &[3]), &mut programmed);
    let steps = converge(&quic(&[1], &[1], &[3, 4]), &mut programmed);
    assert_eq!(names(&steps), ["quic", "server"]);
    assert_eq!(programmed_names(&programmed), (vec![3, 4], vec![(3, 1), (4, 1)]));
    let steps = converge(&quic(&[1], &[1], &[4]), &mut programmed);
    assert_eq!(names(&steps), ["-server", "-quic"]);
    assert_eq!(programmed_names(&programmed), (vec![4], vec![(4, 1)]));
}

/// It was removed and finishes its connections, or an earlier daemon removed it.
#[test]
fn draining_backend_keeps_its_server_ids_until_removal_or_reassignment() {
    let mut programmed = Programmed::default();
    converge(&quic(&[1, 2], &[1, 2], &[0]), &mut programmed);
    let steps = converge(&quic(&[1, 2], &[2], &[0]), &mut programmed);
    assert_eq!(names(&steps), [""; 0]);
    assert_eq!(programmed_names(&programmed), (vec![0], vec![(0, 1), (0, 2)]));

    let mut taken = quic(&[1, 2], &[2], &[0]);
    let service = taken.services.values_mut().next().unwrap();
    let servers = &mut service.quic.as_mut().unwrap().servers;
    servers.insert(address(2), vec![named_by(&config(0), 1)]);
    let mut with_taken = programmed.clone();
    let steps = converge(&taken, &mut with_taken);
    assert_eq!(names(&steps), ["server", "-server"]);
    let owners: Vec<_> = with_taken
        .quic
        .servers
        .values()
        .map(|id| with_taken.backends[id].address)
        .collect();
    assert_eq!(owners, [address(2)]);

    let mut other_lengths = quic(&[1, 2], &[], &[0]);
    let service = other_lengths.services.values_mut().next().unwrap();
    service.quic.as_mut().unwrap().configs = vec![Config::new(0, 3, 5, None).unwrap()];
    let steps = converge(&other_lengths, &mut programmed.clone());
    assert_eq!(names(&steps), ["quic", "-server", "-server"]);

    let steps = converge(&quic(&[2], &[2], &[0]), &mut programmed);
    assert_eq!(names(&steps), ["ring", "-server", "barrier", "-backend"]);
}

#[test]
fn ids_beyond_the_map_limits_are_refused() {
    let configs = (0..MAX_QUIC_CONFIGS + 1).map(|_| config(0)).collect();
    let keys = vec![named_by(&config(0), 1); MAX_QUIC_SERVERS as usize + 1];
    for (configs, keys, error) in [
        (configs, Vec::new(), PlanError::TooManyQuicConfigs(4_097)),
        (vec![config(0)], keys, PlanError::TooManyQuicServers(65_537)),
    ] {
        let mut target = quic(&[1], &[1], &[0]);
        let service = target.services.values_mut().next().unwrap();
        let servers = [(address(1), keys)].into();
        service.quic = Some(TargetQuic { configs, servers });
        assert_eq!(plan(&target, &Programmed::default()), Err(error));
    }
}

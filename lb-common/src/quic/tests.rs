use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

fn found(config: &Config, id: &[u8], behind: u8) -> Option<ServerKey> {
    let mut block = id[1..].to_vec();
    block.resize(40, behind);
    let read = |at: usize| words(block[at..at + HALF_READ].try_into().unwrap());
    let (left, right) = (read(0), read(config.right_at()));
    let mut halves = Halves([left, right]);
    for number in config.steps() {
        config.step(&mut halves, *number);
    }
    let read = ConfigKey::of(ServiceId(3), id[0])? == ConfigKey::new(ServiceId(3), config.id());
    read.then(|| config.server(ServiceId(3), &halves))
}

const KEY: &str = "8f95f09245765f80256934e50c66207f";

/// Appendix B of the draft, all of it, and the example of section 5.4.2.5: configuration, server id, nonce, key,
/// connection id. The last vector's first octet has 0 where the draft's table has 3.
const VECTORS: [(u8, &str, &str, &str, &str); 7] = [
    (0, "c4605e", "4504cc4f", "", "07c4605e4504cc4f"),
    (1, "350d28b420", "3487d970b0", "", "20350d28b4203487d970b0"),
    (0, "ed793a", "ee080dbf", KEY, "0720b1d07b359d3c"),
    (
        1,
        "ed793a51d49b8f5fab65",
        "ee080dbf48",
        KEY,
        "2fcc381bc74cb4fbad2823a3d1f8fed2",
    ),
    (
        2,
        "ed793a51d49b8f5f",
        "ee080dbf48c0d1e5",
        KEY,
        "504dd2d05a7b0de9b2b9907afb5ecf8cc3",
    ),
    (
        0,
        "ed793a51d49b8f5fab",
        "ee080dbf48c0d1e55d",
        KEY,
        "125779c9cc86beb3a3a4a3ca96fce4bfe0cdbc",
    ),
    (
        0,
        "31441a",
        "9c69c275",
        "fdf726a9893ec05c0632d3956680baf0",
        "0767947d29be054a",
    ),
];

#[test]
fn the_published_connection_ids_name_their_servers() {
    for (id, server, nonce, key, connection) in VECTORS {
        let (server, nonce) = (bytes(server), bytes(nonce));
        let key = (!key.is_empty()).then(|| bytes(key).try_into().unwrap());
        let config = Config::new(id, server.len(), nonce.len(), key).unwrap();
        let wanted = config.key_of(ServiceId(3), &server).unwrap();
        for behind in [0, 0xff] {
            assert_eq!(
                found(&config, &bytes(connection), behind),
                Some(wanted),
                "{connection}"
            );
        }
        let mut other = server.clone();
        *other.last_mut().unwrap() ^= 1;
        assert_ne!(config.key_of(ServiceId(3), &other), Some(wanted), "{connection}");
        assert_eq!(config.key_of(ServiceId(3), &server[1..]), None);
        let mut foreign = bytes(connection);
        foreign[0] ^= 0x80;
        assert_eq!(found(&config, &foreign, 0), None);
    }
}

#[test]
fn lengths_outside_the_draft_are_refused() {
    for (id, server, nonce, allowed) in [
        (0, 1, 4, true),
        (6, 15, 4, true),
        (0, 1, 18, true),
        (7, 1, 4, false),
        (0, 0, 4, false),
        (0, 1, 3, false),
        (0, 16, 4, false),
        (0, usize::MAX, 4, false),
    ] {
        assert_eq!(
            Config::new(id, server, nonce, None).is_ok(),
            allowed,
            "{id} {server} {nonce}"
        );
    }
}

#[test]
fn connection_id_position_follows_the_header() {
    for (start, wanted) in [
        ([0x40, 0, 0, 0, 0, 0], (1, MAX_CONNECTION_ID)),
        ([0xc0, 0, 0, 0, 1, 8], (6, 8)),
        ([0xc0, 0, 0, 0, 1, 20], (6, 20)),
        ([0x80, 0, 0, 0, 1, 0], (6, 0)),
    ] {
        assert_eq!(id_at(start), wanted, "{start:02x?}");
    }
}

#[test]
fn the_first_octet_names_the_configuration_of_its_service() {
    let service = ServiceId(4_095);
    for id in 0..=MAX_CONFIG_ID {
        let key = ConfigKey::new(service, id);
        assert_eq!(ConfigKey::of(service, id << 5 | 0x1f), Some(key));
        assert_eq!(key.service(), service);
        assert_ne!(ConfigKey::of(ServiceId(4_094), id << 5), Some(key));
    }
    assert_eq!(ConfigKey::of(service, 0xff), None);
}

#[test]
fn server_ids_of_two_configurations_are_never_the_same_key() {
    let [short, long] = [(0, 3), (1, 4)].map(|(id, length)| Config::new(id, length, 8, None).unwrap());
    let short = short.key_of(ServiceId(3), &[1, 2, 3]).unwrap();
    let long = long.key_of(ServiceId(3), &[1, 2, 3, 0]).unwrap();
    assert_eq!((short.left, short.right), (long.left, long.right));
    assert_ne!(short, long);
}

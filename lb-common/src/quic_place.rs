//! Copies of what connection ids are looked up in, by place: a hash of the key is an index, so that most packets call no kernel
//! function. Each place has the copy of one key's entry; a packet that does not find its key there looks in the table by key.
//!
//! The daemon only fills an empty place, and empties it before the entry in the table changes. So what stands in a place is in the
//! table, too, whenever the daemon ends, and no copy is a mixture of two keys' entries.

use crate::{
    backend::BackendId,
    plain_data,
    quic::{Config, ConfigKey, Half, Server, ServerKey},
    service::{SPREAD_BITS, join, spread},
};

/// Places of configurations. Services with numbers below an eighth of it share none.
pub const CONFIG_PLACES: u32 = 1 << 10;
/// Places of server ids.
pub const SERVER_PLACES: u32 = 1 << 14;

const _: () = assert!(SERVER_PLACES <= 1 << SPREAD_BITS);

/// The copy of a configuration. [`Self::default`] is an empty place, as the kernel makes it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PlacedConfig {
    config: Config,
    /// One more than the key; 0 in an empty place.
    key: u32,
}

impl PlacedConfig {
    /// The copy of a key's configuration.
    pub const fn new(key: ConfigKey, config: Config) -> Self {
        Self {
            config,
            key: key.0 + 1,
        }
    }

    /// Where that of a key stands, if anywhere.
    #[inline(always)]
    pub const fn place(key: ConfigKey) -> u32 {
        key.0 % CONFIG_PLACES
    }

    /// The configuration, if it is the key's.
    #[inline(always)]
    pub fn of(&self, key: ConfigKey) -> Option<&Config> {
        (self.key == key.0 + 1).then_some(&self.config)
    }
}

/// The copy of a server. [`Self::default`] is an empty place: it has no backend.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PlacedServer {
    key: ServerKey,
    server: Server,
}

impl PlacedServer {
    /// The copy of a key's server.
    pub const fn new(key: ServerKey, server: Server) -> Self {
        Self { key, server }
    }

    /// Where that of a key stands, if anywhere.
    #[inline(always)]
    pub const fn place(key: &ServerKey) -> u32 {
        let ([a, b, c], [d, e, f]) = (key.left, key.right);
        spread(join(a, b), join(c, d) ^ join(e, f).rotate_left(29), meta(key)) % SERVER_PLACES
    }

    /// The server, if it is the key's. A copy that is just written may still lack its backend, and then is no one's.
    #[inline(always)]
    pub fn of(&self, key: &ServerKey) -> Option<Server> {
        let differs = differ(self.key.left, key.left) | differ(self.key.right, key.right);
        let is_its = differs as u64 | (meta(&self.key) ^ meta(key)) == 0;
        (is_its && self.server.backend.0 != BackendId::NONE.0).then_some(self.server)
    }
}

/// Service and configuration of a key.
#[inline(always)]
const fn meta(key: &ServerKey) -> u64 {
    key.service.0 as u64 | (key.config as u64) << 16
}

#[inline(always)]
const fn differ([a, b, c]: Half, [d, e, f]: Half) -> u32 {
    (a ^ d) | (b ^ e) | (c ^ f)
}

const _: () = assert!(size_of::<PlacedServer>() == 32);
const _: () = assert!(size_of::<PlacedConfig>() == size_of::<Config>() + 4);

plain_data!(PlacedConfig, PlacedServer);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::ServiceId;

    fn server_key(service: u16, config: u8, left: Half, right: Half) -> ServerKey {
        ServerKey {
            service: ServiceId(service),
            config,
            pad: 0,
            left,
            right,
        }
    }

    #[test]
    fn a_copy_is_its_keys_alone() {
        let server = Server {
            backend: BackendId(7),
            pad: 0,
        };
        let key = server_key(3, 1, [1, 2, 3], [4, 5, 6]);
        let placed = PlacedServer::new(key, server);
        assert_eq!(placed.of(&key), Some(server));
        for other in [
            server_key(4, 1, [1, 2, 3], [4, 5, 6]),
            server_key(3, 2, [1, 2, 3], [4, 5, 6]),
            server_key(3, 1, [0, 2, 3], [4, 5, 6]),
            server_key(3, 1, [1, 0, 3], [4, 5, 6]),
            server_key(3, 1, [1, 2, 0], [4, 5, 6]),
            server_key(3, 1, [1, 2, 3], [0, 5, 6]),
            server_key(3, 1, [1, 2, 3], [4, 0, 6]),
            server_key(3, 1, [1, 2, 3], [4, 5, 0]),
        ] {
            assert_eq!(placed.of(&other), None, "{other:?}");
        }
        // Half written.
        assert_eq!(PlacedServer::new(key, Server::default()).of(&key), None);

        let (key, config) = (ConfigKey::new(ServiceId(3), 1), Config::default());
        let placed = PlacedConfig::new(key, config);
        assert_eq!(placed.of(key), Some(&config));
        assert_eq!(placed.of(ConfigKey::new(ServiceId(3), 2)), None);
        assert_eq!(placed.of(ConfigKey::new(ServiceId(131), 1)), None);
        assert_eq!(PlacedConfig::default().of(ConfigKey::default()), None);
        assert_eq!(PlacedServer::default().of(&ServerKey::default()), None);
    }

    #[test]
    fn keys_spread_over_the_places() {
        let mut taken = std::collections::BTreeSet::new();
        for number in 0..1_000 {
            for key in [
                server_key(1, 0, [number << 8, 0, 0], [0; 3]),
                server_key(1, 0, [0, 0, number], [0; 3]),
                server_key(1, 0, [7, 0, 0], [number << 16, 0, 0]),
                server_key(1, 0, [7, 0, 0], [0, 0, number]),
            ] {
                let place = PlacedServer::place(&key);
                assert!(place < SERVER_PLACES);
                taken.insert(place);
            }
        }
        // Chance alone would take 3,500.
        assert!(taken.len() > 2_500, "{} places", taken.len());
    }
}

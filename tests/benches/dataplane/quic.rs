//! QUIC connection ids that name a backend, from the draft's test vectors.

use anyhow::{Context, Result, anyhow};
use aya::maps::{Array, HashMap};
use lb_common::{
    backend::BackendId,
    map_names,
    quic::{Config, ConfigKey, Server, ServerKey},
    quic_place::{PlacedConfig, PlacedServer},
    service::ServiceId,
};

use crate::setup::{Bench, map_mut};

/// A connection id, and how it is read.
pub(crate) struct Vector {
    config: u8,
    server: &'static [u8],
    nonce: usize,
    encrypted: bool,
    pub(crate) id: &'static [u8],
}

const KEY: u128 = 0x8f95_f092_4576_5f80_2569_34e5_0c66_207f;

/// Appendix B of draft-ietf-quic-load-balancers-21: plaintext, a single pass, four passes.
pub(crate) const VECTORS: [(&str, Vector); 3] = [
    (
        "QUIC id, plaintext",
        Vector {
            config: 0,
            server: &[0xc4, 0x60, 0x5e],
            nonce: 4,
            encrypted: false,
            id: &[0x07, 0xc4, 0x60, 0x5e, 0x45, 0x04, 0xcc, 0x4f],
        },
    ),
    (
        "QUIC id, one pass",
        Vector {
            config: 2,
            server: &[0xed, 0x79, 0x3a, 0x51, 0xd4, 0x9b, 0x8f, 0x5f],
            nonce: 8,
            encrypted: true,
            id: &[
                0x50, 0x4d, 0xd2, 0xd0, 0x5a, 0x7b, 0x0d, 0xe9, 0xb2, 0xb9, 0x90, 0x7a, 0xfb, 0x5e, 0xcf,
                0x8c, 0xc3,
            ],
        },
    ),
    (
        "QUIC id, four passes",
        Vector {
            config: 1,
            server: &[0xed, 0x79, 0x3a, 0x51, 0xd4, 0x9b, 0x8f, 0x5f, 0xab, 0x65],
            nonce: 5,
            encrypted: true,
            id: &[
                0x2f, 0xcc, 0x38, 0x1b, 0xc7, 0x4c, 0xb4, 0xfb, 0xad, 0x28, 0x23, 0xa3, 0xd1, 0xf8, 0xfe,
                0xd2,
            ],
        },
    ),
];

impl Bench {
    /// Has the service read a connection id, which names the first backend.
    pub(crate) fn name_by(&mut self, vector: &Vector) -> Result<()> {
        const SERVICE: ServiceId = ServiceId(1);
        let key = vector.encrypted.then(|| KEY.to_be_bytes());
        let config = Config::new(vector.config, vector.server.len(), vector.nonce, key)
            .map_err(|e| anyhow!("{e:?}"))?;
        let config_key = ConfigKey::new(SERVICE, vector.config);
        let mut configs: HashMap<_, ConfigKey, Config> =
            map_mut(&mut self.lb, map_names::QUIC_CONFIGS)?.try_into()?;
        configs.insert(config_key, config, 0)?;
        let copy = PlacedConfig::new(config_key, config);
        let mut places: Array<_, PlacedConfig> =
            map_mut(&mut self.lb, map_names::QUIC_CONFIG_PLACES)?.try_into()?;
        places.set(PlacedConfig::place(config_key), copy, 0)?;

        let key = config
            .key_of(SERVICE, vector.server)
            .context("the id has another length")?;
        let backend = BackendId(1);
        let server = Server { backend, pad: 0 };
        let mut servers: HashMap<_, ServerKey, Server> =
            map_mut(&mut self.lb, map_names::QUIC_SERVERS)?.try_into()?;
        servers.insert(key, server, 0)?;
        let mut places: Array<_, PlacedServer> =
            map_mut(&mut self.lb, map_names::QUIC_SERVER_PLACES)?.try_into()?;
        Ok(places.set(PlacedServer::place(&key), PlacedServer::new(key, server), 0)?)
    }
}

//! The maps of QUIC connection ids: how to read them, the backends that they name, and copies of both by place (see
//! [`lb_common::quic_place`]).

use std::io;

use lb_common::{
    quic::Server,
    quic_place::{PlacedConfig, PlacedServer},
};

use super::maps::{Maps, Table};
use crate::{
    error::{DatapathError, failed},
    plan::{ProgrammedQuic, QuicStep},
};

/// Executes a step. A copy goes before its entry changes, and comes after it.
pub(super) fn write(maps: &Maps, step: &QuicStep) -> io::Result<()> {
    let (configs, servers) = (&maps.quic_config_places, &maps.quic_server_places);
    match step {
        QuicStep::WriteConfig { key, config } => {
            let place = PlacedConfig::place(*key);
            empty(configs, place, |copy| copy.of(*key).is_some())?;
            maps.quic_configs.set(key, **config)?;
            fill(configs, place, PlacedConfig::new(*key, **config))
        }
        QuicStep::RemoveConfig { key } => {
            empty(configs, PlacedConfig::place(*key), |copy| copy.of(*key).is_some())?;
            maps.quic_configs.delete(key).map(drop)
        }
        QuicStep::WriteServer { key, backend } => {
            let place = PlacedServer::place(key);
            let server = Server {
                backend: *backend,
                pad: 0,
            };
            empty(servers, place, |copy| copy.of(key).is_some())?;
            maps.quic_servers.set(key, server)?;
            fill(servers, place, PlacedServer::new(*key, server))
        }
        QuicStep::RemoveServer { key } => {
            empty(servers, PlacedServer::place(key), |copy| copy.of(key).is_some())?;
            maps.quic_servers.delete(key).map(drop)
        }
    }
}

/// Empties a place that holds the copy of the key whose entry is about to change.
fn empty<V: aya::Pod + Default>(
    places: &Table<u32, V>,
    place: u32,
    is_its: impl Fn(&V) -> bool,
) -> io::Result<()> {
    if places.get(&place)?.is_some_and(|copy| is_its(&copy)) {
        places.set(&place, V::default())?;
    }
    Ok(())
}

/// Puts a copy in a place that is empty; in one that another key has, packets do without.
fn fill<V: aya::Pod + Default + PartialEq>(places: &Table<u32, V>, place: u32, copy: V) -> io::Result<()> {
    if places.get(&place)? == Some(V::default()) {
        places.set(&place, copy)?;
    }
    Ok(())
}

/// Reads back the programmed state.
pub(super) fn read_back(maps: &Maps) -> Result<ProgrammedQuic, DatapathError> {
    let mut quic = ProgrammedQuic::default();
    maps.quic_configs
        .for_each_chunk(|keys, configs| {
            quic.configs
                .extend(keys.iter().copied().zip(configs.iter().copied()));
            Ok(())
        })
        .map_err(|e| failed(maps.quic_configs.name(), &e))?;
    maps.quic_servers
        .for_each_chunk(|keys, servers| {
            let backends = servers.iter().map(|server| server.backend);
            quic.servers.extend(keys.iter().copied().zip(backends));
            Ok(())
        })
        .map_err(|e| failed(maps.quic_servers.name(), &e))?;
    Ok(quic)
}

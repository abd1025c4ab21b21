//! The maps of QUIC connection ids: how to read them, and the backends that they name.

use std::io;

use lb_common::quic::Server;

use super::{DatapathError, maps::Maps, programmed::failed};
use crate::plan::{ProgrammedQuic, QuicStep};

/// Executes a step.
pub(super) fn write(maps: &Maps, step: &QuicStep) -> io::Result<()> {
    match step {
        QuicStep::WriteConfig { key, config } => maps.quic_configs.set(key, **config),
        QuicStep::RemoveConfig { key } => maps.quic_configs.delete(key).map(drop),
        QuicStep::WriteServer { key, backend } => {
            let backend = *backend;
            maps.quic_servers.set(key, Server { backend, pad: 0 })
        }
        QuicStep::RemoveServer { key } => maps.quic_servers.delete(key).map(drop),
    }
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

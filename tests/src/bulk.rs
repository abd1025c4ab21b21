//! Transfers of many full segments, for paths that do not take them all.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Result;

use crate::{http::connect_within, netns::Netns};

/// Bytes of a transfer that needs many full segments.
pub const TRANSFER: usize = 1 << 20;
/// First byte of a connection: whether the client's bytes or the server's follow.
pub const UPLOAD: u8 = b'u';
/// As [`UPLOAD`].
pub const DOWNLOAD: u8 = b'd';

/// Connects from `port` and transfers one way; bytes that got through.
///
/// # Errors
/// When the connection fails, or nothing comes for too long.
pub fn bulk(server: SocketAddr, port: u16, transfer: u8) -> Result<usize> {
    let mut stream = connect_within(server, port, Duration::from_secs(10))?;
    stream.write_all(&[transfer])?;
    if transfer == UPLOAD {
        stream.write_all(&vec![7; TRANSFER])?;
        stream.read_exact(&mut [0])?;
        return Ok(TRANSFER);
    }
    Ok(stream.read_to_end(&mut Vec::new())?)
}

/// Receives [`TRANSFER`] bytes on each connection and answers one byte, or sends as many.
pub struct BulkServer {
    stop: Arc<AtomicBool>,
}

impl BulkServer {
    /// Starts it on these addresses.
    ///
    /// # Errors
    /// When one cannot be bound.
    pub fn start(ns: &Netns, addresses: &[SocketAddr]) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        for address in addresses {
            let listener = ns.enter(|| TcpListener::bind(address))??;
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let Ok(mut stream) = stream else { return };
                    thread::spawn(move || {
                        let mut transfer = [0];
                        stream.read_exact(&mut transfer)?;
                        let mut bytes = vec![0; TRANSFER];
                        if transfer == [UPLOAD] {
                            stream.read_exact(&mut bytes)?;
                            bytes.truncate(1);
                        }
                        stream.write_all(&bytes)
                    });
                }
            });
        }
        Ok(Self { stop })
    }
}

impl Drop for BulkServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

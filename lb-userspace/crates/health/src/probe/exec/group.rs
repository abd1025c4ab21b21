//! A program of a check, with everything it started.

use std::{io, process::ExitStatus};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Child,
};

use crate::probe::connection::TooMuch;

/// Bytes of output that are kept; the rest is thrown away.
const MAX_OUTPUT: usize = 4096;
/// Bytes of output that are read: a program that prints without end costs this machine's time.
const MAX_PRINTED: usize = 2 * 1024 * 1024;

/// A program with everything it started.
pub(super) struct Group(pub(super) Child);

impl Group {
    /// Its exit status, and the beginning of its output.
    pub(super) async fn finish(&mut self) -> io::Result<(ExitStatus, Vec<u8>)> {
        let (out, err) = (self.0.stdout.take(), self.0.stderr.take());
        let (out, err) = tokio::try_join!(drain(out), drain(err))?;
        let status = self.0.wait().await?;
        Ok((status, if err.is_empty() { out } else { err }))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // No id after the wait: the id may belong to another process then, so nothing is killed.
        let Some(group) = self.0.id().and_then(|id| libc::pid_t::try_from(id).ok()) else {
            return;
        };
        // SAFETY: plain system call without pointers. The group's leader has not been waited for, so its id is its own.
        unsafe { libc::kill(-group, libc::SIGKILL) };
    }
}

/// Reads all, up to a bound, and keeps the beginning.
async fn drain(pipe: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let Some(mut pipe) = pipe else {
        return Ok(Vec::new());
    };
    let mut kept = Vec::with_capacity(256);
    let mut piece = [0; 1024];
    let mut printed = 0;
    loop {
        let read = pipe.read(&mut piece).await?;
        printed += read;
        if printed > MAX_PRINTED {
            return Err(io::Error::other(TooMuch(MAX_PRINTED)));
        }
        if read == 0 {
            return Ok(kept);
        }
        let wanted = read.min(MAX_OUTPUT - kept.len());
        kept.extend_from_slice(piece.get(..wanted).unwrap_or_default());
    }
}

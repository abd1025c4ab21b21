//! Polls an agent: connects, sends its text, reads its line.

use std::{net::SocketAddr, time::Duration};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::answer;
use crate::{
    agent::settings::MAX_LINE,
    error::{CheckError, Stage},
    probe::{connect::Budget, connection::Connection, route::Route},
};

/// The line of the agent at `target`, after `send` was sent to it. Takes at most `timeout` for all of it.
///
/// # Errors
/// Why there is none. A line without its end does not count, as in HAProxy: its rest may have changed the meaning.
pub(super) async fn ask(target: SocketAddr, send: &str, timeout: Duration) -> Result<Vec<u8>, CheckError> {
    let mut budget = Budget::start(target, timeout);
    let mut stream = budget.connect(Route::default()).await?;
    if !send.is_empty() {
        let sent = stream.write_all(send.as_bytes());
        budget.spend(Stage::Request, sent).await?;
    }
    read(&mut budget, target, stream).await
}

async fn read(
    budget: &mut Budget,
    target: SocketAddr,
    mut stream: Connection,
) -> Result<Vec<u8>, CheckError> {
    let mut buffer = [0; MAX_LINE];
    let mut filled = 0;
    loop {
        let stage = if filled == 0 { Stage::Request } else { Stage::Line };
        let room = buffer.get_mut(filled..).unwrap_or_default();
        if room.is_empty() {
            return Err(CheckError::Answer {
                target,
                reason: format!("no end of line within {MAX_LINE} bytes").into(),
            });
        }
        let read = budget.spend(stage, stream.read(room)).await?;
        if read == 0 {
            return Err(CheckError::Closed { target, stage });
        }
        filled += read;
        if let Some(line) = answer::line(buffer.get(..filled).unwrap_or_default()) {
            return Ok(line.to_vec());
        }
    }
}

//! Answers that list everything: written service by service, so that the daemon never holds the whole of them.

use std::{io, mem};

use axum::{
    body::Body,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use http_body_util::channel::{Channel, Sender};
use hyper::body::Bytes;
use serde::Serialize;

use super::types::{ConfigState, Interface, MapUse, Problem, Status};
use crate::api::snapshot::StatusSnapshot;

/// Bytes of an answer that are sent at a time, about.
const PIECE: usize = 64 * 1024;
/// Pieces on their way to a reader that is slower than they come; then the writer waits.
const PIECES: usize = 4;

/// The text before and after the services of a [`Status`].
#[derive(Serialize)]
struct Before {
    version: String,
    pid: u32,
    started: String,
    revision: u64,
    ready: bool,
    interfaces: Vec<Interface>,
}

#[derive(Serialize)]
struct Behind {
    metrics: Option<String>,
    maps: Vec<MapUse>,
    config: ConfigState,
    problems: Vec<Problem>,
}

/// All services of a snapshot, as a list.
pub(super) fn services(snapshot: StatusSnapshot) -> Response {
    answer(snapshot, b"[".to_vec(), |_| Ok(b"]".to_vec()))
}

/// A status with the services and problems of a snapshot.
///
/// # Errors
/// It is no JSON.
pub(super) fn status(snapshot: StatusSnapshot, status: Status) -> serde_json::Result<Response> {
    let Status {
        version,
        pid,
        started,
        revision,
        ready,
        interfaces,
        services: _,
        metrics,
        maps,
        config,
        mut problems,
    } = status;
    let mut before = serde_json::to_vec(&Before {
        version,
        pid,
        started,
        revision,
        ready,
        interfaces,
    })?;
    // The rest of the object follows.
    before.pop();
    before.extend(b",\"services\":[");
    let behind = move |of_services| {
        problems.extend(of_services);
        let behind = serde_json::to_vec(&Behind {
            metrics,
            maps,
            config,
            problems,
        })?;
        Ok([b"],", behind.get(1..).unwrap_or_default()].concat())
    };
    Ok(answer(snapshot, before, behind))
}

/// A JSON answer: `before`, the services separated by commas, and the result of `behind` for their problems. It ends
/// early if the reader disconnects.
fn answer(
    snapshot: StatusSnapshot,
    before: Vec<u8>,
    behind: impl FnOnce(Vec<Problem>) -> serde_json::Result<Vec<u8>> + Send + 'static,
) -> Response {
    let (sender, body) = Channel::<Bytes, io::Error>::new(PIECES);
    tokio::spawn(async move {
        let mut pieces = Pieces {
            sender,
            piece: before,
        };
        // The reader must see that the answer is truncated.
        if let Err(error) = pieces.send_all(&snapshot, behind).await {
            pieces.sender.abort(error);
        }
    });
    ([(CONTENT_TYPE, "application/json")], Body::new(body)).into_response()
}

/// Sends written text in pieces.
struct Pieces {
    sender: Sender<Bytes, io::Error>,
    piece: Vec<u8>,
}

impl Pieces {
    async fn send_all(
        &mut self,
        snapshot: &StatusSnapshot,
        behind: impl FnOnce(Vec<Problem>) -> serde_json::Result<Vec<u8>>,
    ) -> io::Result<()> {
        let mut problems = Vec::new();
        for (place, service) in snapshot.desired().services.values().enumerate() {
            if place > 0 {
                self.piece.push(b',');
            }
            let service = snapshot.describe(service);
            serde_json::to_writer(&mut self.piece, &service)?;
            problems.extend(StatusSnapshot::problems_of(&service));
            if self.piece.len() >= PIECE {
                self.flush().await?;
            }
        }
        self.piece.extend(behind(problems)?);
        self.flush().await
    }

    async fn flush(&mut self) -> io::Result<()> {
        let piece = mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        let sent = self.sender.send_data(piece.into()).await;
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

//! Flows as lines of JSON, written while the tables are read. A reader that is slower than the walk makes it wait, and holds
//! up nothing else.

use std::{
    io, mem,
    ops::ControlFlow,
    sync::{Arc, mpsc},
};

use http_body_util::channel::{Channel, Sender};
use hyper::body::Bytes;
use tokio::{runtime::Handle, sync::OwnedSemaphorePermit, task};

use super::line::LineWriter;
use crate::{
    api::{context::Api, names::Names},
    datapath::{Flow, FlowFilter},
};

/// Bytes of an answer that are sent at a time, about.
const PIECE: usize = 128 * 1024;
/// Room for the line that fills a piece; a longer one makes it grow.
const LINE: usize = 1024;
/// Pieces on their way to a reader that is slower than they come; then the walk waits.
const PIECES: usize = 4;

/// Chunks of flows between the thread that reads them and the one that writes them; then the walk waits.
const CHUNKS: usize = 4;

/// The answer's body.
type Answer = Channel<Bytes, io::Error>;

/// Writes flows as lines.
pub(super) struct Lines {
    api: Arc<Api>,
    sender: Sender<Bytes, io::Error>,
    writer: LineWriter,
    piece: Vec<u8>,
    _permit: OwnedSemaphorePermit,
}

impl Lines {
    /// The flows that a filter takes, `limit` at most, in no order. They are written on one thread while another one reads.
    pub(super) fn of_tables(
        api: Arc<Api>,
        filter: FlowFilter,
        limit: Option<usize>,
        permit: OwnedSemaphorePermit,
    ) -> Answer {
        let (sender, chunks) = mpsc::sync_channel(CHUNKS);
        let reader = Arc::clone(&api);
        let walk = task::spawn_blocking(move || {
            let mut left = limit.unwrap_or(usize::MAX);
            reader.flows.tables.walk(&filter, &mut |flows| {
                let flows = flows.get(..left).unwrap_or(flows);
                left -= flows.len();
                // An error means that the client has closed the connection.
                if sender.send(flows.to_vec()).is_err() || left == 0 {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })
        });
        Self::answer(api, permit, move |lines| {
            for flows in chunks {
                lines.write(&flows)?;
            }
            Handle::current().block_on(walk)?
        })
    }

    /// These flows.
    pub(super) fn of_flows(api: Arc<Api>, flows: Vec<Flow>, permit: OwnedSemaphorePermit) -> Answer {
        Self::answer(api, permit, move |lines| lines.write(&flows))
    }

    /// The lines that `write` writes, on a thread for blocking work.
    fn answer(
        api: Arc<Api>,
        permit: OwnedSemaphorePermit,
        write: impl FnOnce(&mut Self) -> io::Result<()> + Send + 'static,
    ) -> Answer {
        let (sender, body) = Channel::new(PIECES);
        task::spawn_blocking(move || {
            let names = Names::new(&api.control.view());
            let interfaces = api.interfaces.borrow().clone();
            let attached = interfaces
                .iter()
                .filter_map(|interface| Some((interface.attached.as_ref()?.ifindex, interface.name.clone())));
            let mut lines = Self {
                api,
                sender,
                writer: LineWriter::new(names, attached),
                piece: Vec::with_capacity(PIECE + LINE),
                _permit: permit,
            };
            // The reader must see that the answer is truncated.
            if let Err(error) = write(&mut lines).and_then(|()| lines.flush()) {
                lines.sender.abort(error);
            }
        });
        body
    }

    fn write(&mut self, flows: &[Flow]) -> io::Result<()> {
        for flow in flows {
            self.writer.write(flow, &mut self.piece);
            if self.piece.len() >= PIECE {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = mem::replace(&mut self.piece, Vec::with_capacity(PIECE + LINE));
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        Handle::current().block_on(async {
            tokio::select! {
                sent = self.sender.send_data(piece.into()) => sent.map_err(|_| gone()),
                () = self.api.cancel.cancelled() => Err(gone()),
            }
        })
    }
}

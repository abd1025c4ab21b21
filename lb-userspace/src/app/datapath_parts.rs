//! Shows parts of the datapath that fail as missing parts of the daemon.

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    datapath::{DatapathPart, PartChange, PartState},
    parts::{MissingPart, Part, PartBoard},
};

/// Follows failures and recoveries until `cancel`.
pub(super) async fn follow(
    mut changes: mpsc::Receiver<PartChange>,
    board: PartBoard,
    cancel: CancellationToken,
) {
    loop {
        let change = tokio::select! {
            () = cancel.cancelled() => return,
            change = changes.recv() => change,
        };
        let Some(PartChange { part, state }) = change else {
            return;
        };
        let part = match part {
            DatapathPart::LinkNotices => Part::LinkNotices,
            DatapathPart::Links => Part::Links,
            DatapathPart::RouteNotices => Part::RouteNotices,
            DatapathPart::NextHops => Part::NextHops,
            DatapathPart::OwnAddresses => Part::OwnAddresses,
            DatapathPart::Pins => Part::Pins,
            DatapathPart::Program => Part::Program,
        };
        match state {
            PartState::Failed { message, hint } => board.lost(part, MissingPart { message, hint }),
            PartState::Works(how) => board.found(part, how),
        }
    }
}

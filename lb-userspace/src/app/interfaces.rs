//! Reports changes of interfaces.

use std::{sync::Arc, time::SystemTime};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    control::ControlHandle,
    datapath::{Interface, InterfaceChange, InterfaceChangeKind},
    events::{EventKind, EventLog, NewEvent},
};

/// Makes changes of interfaces events, until `cancel`.
pub(super) async fn report(
    mut changes: mpsc::Receiver<InterfaceChange>,
    events: Arc<EventLog>,
    control: ControlHandle,
    cancel: CancellationToken,
) {
    loop {
        let change = tokio::select! {
            () = cancel.cancelled() => return,
            change = changes.recv() => change,
        };
        let Some(InterfaceChange { kind, message }) = change else {
            return;
        };
        let event = NewEvent {
            kind: match kind {
                InterfaceChangeKind::Attached => EventKind::Attached,
                InterfaceChangeKind::Detached => EventKind::Detached,
                InterfaceChangeKind::Changed => EventKind::Interface,
            },
            service: None,
            backend: None,
            revision: control.view().desired.revision.0,
            message,
            by: None,
        };
        events.push(event, SystemTime::now());
    }
}

/// How the interfaces are at the start, as events.
pub(super) fn at_start(interfaces: &[Interface]) -> Vec<(EventKind, String)> {
    let mut events = Vec::new();
    for interface in interfaces {
        let name = &interface.name;
        if let Some(attached) = &interface.attached {
            let how = if attached.took_over {
                "took over"
            } else {
                "attached to"
            };
            let mode = attached.xdp_mode.name();
            events.push((EventKind::Attached, format!("{how} {name}, XDP {mode}")));
        }
        if let Some(problem) = interface.problem() {
            let message = format!("interface {name} {}", problem.message);
            tracing::warn!("{message}");
            events.push((EventKind::Interface, message));
        }
    }
    events
}

//! The task that looks names up and applies the answers.

use std::{sync::Arc, time::SystemTime};

use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::board::{Board, News, Question};
use crate::{
    chain::chain,
    clock::{now, until},
    control::{Change, ControlHandle},
    datapath::HostAddresses,
    discovery::{
        provider::{Answer, Provider},
        status::HostStatuses,
    },
    events::{EventKind, EventLog, NewEvent},
};

/// Follows the host names of the desired state until `cancel`. Cancel-safe: a change under way is control's.
pub async fn run(
    provider: impl Provider,
    control: ControlHandle,
    own: watch::Receiver<Arc<HostAddresses>>,
    events: Arc<EventLog>,
    publisher: watch::Sender<Arc<HostStatuses>>,
    cancel: CancellationToken,
) {
    let mut board = Board::default();
    let mut views = control.views();
    let mut lookups: JoinSet<(Question, Result<Answer, String>)> = JoinSet::new();
    views.mark_changed();
    let report = |news: Vec<News>| {
        for News { id, bad, message } in news {
            let (service, backend) = id;
            if bad {
                tracing::warn!(%service, %backend, "{message}");
            } else {
                tracing::info!(%service, %backend, "{message}");
            }
            let event = NewEvent {
                kind: EventKind::Discovery,
                service: Some(service.to_string()),
                backend: Some(backend.to_string()),
                revision: control.view().desired.revision.0,
                message,
                by: None,
            };
            events.push(event, SystemTime::now());
        }
    };
    loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            changed = views.changed() => {
                if changed.is_err() {
                    return;
                }
                let desired = Arc::clone(&views.borrow_and_update().desired);
                board.follow(&desired, now());
            }
            Some(done) = lookups.join_next() => match done {
                Ok((question, answer)) => {
                    report(board.answered(&question, answer, now(), SystemTime::now()).into_iter().collect());
                }
                Err(error) => tracing::error!(error = chain(&error), "a look-up failed"),
            },
            () = until(board.next()) => {}
        }
        for question in board.due(now()) {
            let provider = provider.clone();
            lookups.spawn(async move {
                let answer = provider.look_up(&question.host, question.families).await;
                (question, answer)
            });
        }
        let addresses = Arc::clone(&own.borrow());
        let (changes, news) = board.changes(now(), |address| addresses.is_own(address));
        report(news);
        if !changes.is_empty() {
            let change = Change::Discovered(changes.clone());
            if let Err(error) = control.change(change, None, false).await {
                report(board.refused(&changes, &chain(&error), now()));
            }
        }
        publisher.send_if_modified(|published| {
            let statuses = board.statuses();
            let changed = **published != statuses;
            if changed {
                *published = Arc::new(statuses);
            }
            changed
        });
    }
}

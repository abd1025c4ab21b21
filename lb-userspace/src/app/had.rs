//! Parts of the daemon that start once they are available: at the start, or later.

use std::{
    io,
    sync::{Arc, OnceLock},
};

use tokio::{net::UnixListener, time};
use tokio_util::sync::CancellationToken;

use super::notify::{Notice, notify};
use crate::{
    api::{
        self, Api,
        access::Access,
        socket::{Place, Socket, listen},
    },
    config::DaemonSettings,
    metrics::{self, Endpoint, ServeError},
    page::{self, Feed, HostNames},
    parts::{MissingPart, Part, PartBoard, RETRY},
    serve::{Restricted, Server},
};

/// A part of the daemon that may become available later: the result of the first attempt, `None` if it failed.
pub(super) struct Late<T> {
    part: Part,
    first: Option<T>,
    board: PartBoard,
    cancel: CancellationToken,
}

impl<T> Late<T> {
    /// Takes the result of the first attempt, and reports its error.
    pub(super) fn new<E: Into<MissingPart>>(
        part: Part,
        first: Result<T, E>,
        board: &PartBoard,
        cancel: &CancellationToken,
    ) -> Self {
        let first = first.map_err(|error| board.lost(part, error.into())).ok();
        Self {
            part,
            first,
            board: board.clone(),
            cancel: cancel.clone(),
        }
    }

    /// Retries until the part is available, then reports `works`; `None` if the daemon ends before.
    async fn have<E, F>(&mut self, mut again: impl FnMut() -> F, works: &str) -> Option<T>
    where
        E: Into<MissingPart>,
        F: Future<Output = Result<T, E>>,
    {
        loop {
            if let Some(had) = self.first.take() {
                self.board.found(self.part, works.to_owned());
                return Some(had);
            }
            tokio::select! {
                () = self.cancel.cancelled() => return None,
                () = time::sleep(RETRY) => {}
            }
            match again().await {
                Ok(had) => self.first = Some(had),
                Err(error) => self.board.lost(self.part, error.into()),
            }
        }
    }
}

/// Share of the connections to the metrics address that pages may hold.
const SHARE_OF_PAGES: usize = 4;

/// Serves metrics and the page until the daemon ends.
pub(super) async fn serve_metrics(
    mut late: Late<tokio::net::TcpListener>,
    server: Server,
    endpoint: Endpoint,
    api: Arc<Api>,
) {
    let DaemonSettings {
        metrics: address,
        metrics_access: access,
        metrics_names: names,
        ..
    } = api.settings.clone();
    let again = || metrics::bind(address);
    let works = format!("metrics are served on {address}");
    if let Some(listener) = late.have::<ServeError, _>(again, &works).await {
        let feed = Arc::new(Feed::new(api, server.limits.connections / SHARE_OF_PAGES));
        let page = page::routes(Arc::clone(&feed), HostNames::new(&names));
        let listener = Restricted { listener, access };
        tokio::join!(metrics::serve(listener, server, endpoint, page), feed.run());
    }
}

/// Serves the admin API until the daemon ends. The socket's guard goes to `guard`, since its file stays until then.
pub(super) async fn serve_api(
    mut late: Late<(UnixListener, Socket)>,
    place: Place,
    server: Server,
    api: Arc<Api>,
    guard: Arc<OnceLock<Socket>>,
) {
    let again = async || listen(&place).await.map_err(|error| error.missing(place.role));
    let works = format!("commands are served on {}", place.path.display());
    if let Some((listener, socket)) = late.have::<MissingPart, _>(again, &works).await {
        // There was none before.
        let _ = guard.set(socket);
        api::serve(listener, server, api, Access::All(place.role)).await;
    }
}

/// Notifies the service manager that the daemon is ready.
pub(super) async fn notify_ready(mut late: Late<()>) {
    let again = || std::future::ready(notify(Notice::Ready));
    late.have::<io::Error, _>(again, "the service manager was notified")
        .await;
}

impl From<io::Error> for MissingPart {
    /// Of the service manager.
    fn from(error: io::Error) -> Self {
        Self {
            message: format!("cannot notify the service manager that the daemon is ready: {error}"),
            hint: "look at NOTIFY_SOCKET and at `systemctl status`".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::EventLog;

    #[tokio::test(start_paused = true)]
    async fn a_part_that_is_missing_is_tried_again_until_it_is_there() {
        let board = PartBoard::new(Arc::new(EventLog::default()));
        let cancel = CancellationToken::new();
        let refused = || io::Error::from(io::ErrorKind::AddrInUse);
        let mut late = Late::new::<io::Error>(Part::Metrics, Err(refused()), &board, &cancel);
        assert!(board.missing().contains_key(&Part::Metrics));
        let mut attempts = 0;
        let again = || {
            attempts += 1;
            std::future::ready(if attempts < 3 {
                Err(refused())
            } else {
                Ok(attempts)
            })
        };
        assert_eq!(late.have(again, "back").await, Some(3));
        assert!(board.missing().is_empty());

        let mut late = Late::new::<io::Error>(Part::Metrics, Err(refused()), &board, &cancel);
        cancel.cancel();
        let again = || std::future::ready(Err::<u32, _>(refused()));
        assert_eq!(late.have(again, "back").await, None, "the daemon ends");
    }
}

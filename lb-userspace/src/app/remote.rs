//! The admin API over TLS: its files are read at the start, and again when they change.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use rustls::ServerConfig;
use tokio::{net::TcpListener, runtime::Handle, sync::watch, task, time};

use crate::{
    api::{self, Api, access::Access},
    chain::chain,
    config::DaemonSettings,
    events::rfc3339,
    parts::{MissingPart, Part, PartBoard, RETRY},
    serve::{Loaded, Server, Stamps, Tls, TlsFiles},
};

/// Time between two looks at the files.
const LOOK: Duration = Duration::from_secs(2);

/// Where the API is served over TLS, and by which files.
#[derive(Clone, Debug)]
struct Remote {
    address: SocketAddr,
    files: TlsFiles,
}

/// Serves the API over TLS where the settings say so, on the threads of `serving`.
pub(super) fn spawn(api: &Arc<Api>, server: Server, serving: &Handle) {
    if let Some(remote) = Remote::of(&api.settings) {
        api.tracker
            .spawn_on(remote.serve(server, Arc::clone(api)), serving);
    }
}

impl Remote {
    /// As the settings say; `None` if they name no address.
    fn of(settings: &DaemonSettings) -> Option<Self> {
        Some(Self {
            address: settings.api_address?,
            files: TlsFiles::of(settings)?,
        })
    }

    /// Serves until the daemon ends. What is missing is reported and tried again.
    async fn serve(self, server: Server, api: Arc<Api>) {
        let (board, cancel) = (api.parts.clone(), api.cancel.clone());
        let works = format!("the admin API is served on {}", self.address);
        let (listener, loaded, stamps) = loop {
            match self.begin().await {
                Ok(begun) => break begun,
                Err(missing) => board.lost(Part::ApiListener, missing),
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = time::sleep(RETRY) => {}
            }
        };
        board.found(Part::ApiListener, works);
        let Loaded { config, crl_ends } = loaded;
        let (publish, config) = watch::channel(config);
        let tls = Tls {
            listener,
            config,
            logged: Mutex::default(),
        };
        let serving = api::serve(tls, server, api, Access::ByName);
        tokio::select! {
            () = serving => {}
            () = self.follow(&publish, stamps, crl_ends, &board) => {}
        }
    }

    async fn begin(&self) -> Result<(TcpListener, Loaded, Stamps), MissingPart> {
        let (stamps, loaded) = self.load().await?;
        let listener = TcpListener::bind(self.address)
            .await
            .map_err(|error| MissingPart {
                message: format!("the admin API cannot be served on {}: {error}", self.address),
                hint: "see which process has that address: `ss -ltnp`".to_owned(),
            })?;
        Ok((listener, loaded, stamps))
    }

    async fn load(&self) -> Result<(Stamps, Loaded), MissingPart> {
        let missing = |why: String| {
            MissingPart {
                message: format!("the admin API on {} cannot use its certificates: {why}", self.address),
                hint: "mend the files of api_cert_file, api_key_file, api_ca_file and api_crl_file; they are read again when they \
                       change"
                    .to_owned(),
            }
        };
        let files = self.files.clone();
        let loaded = task::spawn_blocking(move || (files.stamps(), files.load()));
        let (stamps, loaded) = loaded.await.map_err(|error| missing(error.to_string()))?;
        let loaded = loaded.map_err(|error| missing(chain(&error)))?;
        Ok((stamps, loaded))
    }

    /// The revocation list that is out of date: it stays in force, and says nothing of certificates revoked since.
    fn outdated(&self, crl_ends: Option<SystemTime>) -> Option<MissingPart> {
        let end = crl_ends.filter(|end| *end <= SystemTime::now())?;
        let file = self.files.crl.as_deref()?.display();
        Some(MissingPart {
            message: format!(
                "the revocation list {file} of the admin API on {} is out of date since {}: it stays in force, and \
                 certificates revoked since then are not refused",
                self.address,
                rfc3339(end)
            ),
            hint: format!("put a new list of the authority into {file}; it is read again when it changes"),
        })
    }

    /// Reads files that have changed, and reports a revocation list that is out of date. Files that cannot be used leave the former
    /// ones in force, so the API is served all the while. Cancel-safe.
    async fn follow(
        &self,
        publish: &watch::Sender<Arc<ServerConfig>>,
        mut known: Stamps,
        mut crl_ends: Option<SystemTime>,
        board: &PartBoard,
    ) {
        loop {
            if let Some(outdated) = self.outdated(crl_ends) {
                board.lost(Part::ApiRevocations, outdated);
                // Said once for each list.
                crl_ends = None;
            }
            time::sleep(LOOK).await;
            let files = self.files.clone();
            let Ok(stamps) = task::spawn_blocking(move || files.stamps()).await else {
                continue;
            };
            if stamps == known {
                continue;
            }
            // A file that is written right now has other stamps with the next look.
            known = stamps;
            match self.load().await {
                Ok((_, loaded)) => {
                    publish.send_replace(loaded.config);
                    crl_ends = loaded.crl_ends;
                    tracing::info!("new certificates of the admin API are in force");
                    board.found(Part::ApiFiles, "the admin API has new certificates".to_owned());
                    if self.outdated(crl_ends).is_none() {
                        let current = "the admin API has a revocation list that is not out of date";
                        board.found(Part::ApiRevocations, current.to_owned());
                    }
                }
                Err(MissingPart { message, hint }) => {
                    let message = format!("{message}; the former ones stay in force");
                    board.lost(Part::ApiFiles, MissingPart { message, hint });
                }
            }
        }
    }
}

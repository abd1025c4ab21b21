//! Waits for the program, which is loaded beside the rest of a start.

use std::time::Duration;

use tokio::{task, time};
use tokio_util::sync::CancellationToken;

use crate::{
    app::error::RunError,
    datapath::{AttachResult, CheckPaths, WriterHandle},
    health::settings::Through,
    state::desired::Desired,
};

/// Time from READY to loading the whole program, so that it does not compete with the first clients.
const REST_AFTER: Duration = Duration::from_millis(100);

/// Time after which a whole program that could not be loaded is loaded again: that takes a processor for a while.
const LOAD_AGAIN: Duration = Duration::from_secs(5);

/// The program on its way to the interfaces.
pub(super) struct Loading(Option<AttachResult>);

impl Loading {
    pub(super) const fn new(attached: AttachResult) -> Self {
        Self(Some(attached))
    }

    /// Waits until the program is on the interfaces.
    ///
    /// # Errors
    /// Why it is not; ways of checks are closed then.
    pub(super) async fn done(&mut self, check_paths: &CheckPaths) -> Result<(), RunError> {
        let Some(attached) = self.0.take() else {
            return Ok(());
        };
        let result = match attached.await {
            Ok(result) => result.map_err(RunError::Datapath),
            Err(_) => Err(RunError::Died("attaching")),
        };
        if result.is_err() {
            check_paths.close().await;
        }
        result
    }
}

/// Whether checks need the program: answers to checks through the forwarding path come by it.
pub(super) fn checks_need_program(desired: &Desired) -> bool {
    let mut services = desired.services.values();
    services.any(|service| service.health.through == Through::Vip)
}

/// Has the whole program take the place of the first one, some time after READY; tries again until it runs. Then frames that cannot be
/// redirected are counted.
pub(super) async fn load_rest(writer: WriterHandle, cancel: CancellationToken) {
    let mut wait = REST_AFTER;
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            () = time::sleep(wait) => {}
        }
        if writer.load_rest().await {
            break;
        }
        wait = LOAD_AGAIN;
    }
    let stats = writer.stats();
    let counts = task::spawn_blocking(move || stats.count_redirects()).await;
    // Without a result the runtime is going down.
    if let Ok(Err(error)) = counts {
        tracing::warn!(%error, "frames that cannot be redirected are not counted");
    }
}

//! The data plane at the end of the daemon: detached or kept.

use crate::{app::error::RunError, config::daemon::OnExit, datapath::WriterHandle};

/// Takes the data plane out of the kernel, or leaves it there, forwarding.
pub(super) async fn leave(writer: &WriterHandle, on_exit: OnExit) -> Result<(), RunError> {
    match on_exit {
        OnExit::Detach => {
            writer.detach().await?;
            tracing::info!("detached");
        }
        OnExit::Keep => {
            writer.keep().await;
            tracing::info!("the kernel forwards on without the daemon; `lb detach` ends it");
        }
    }
    Ok(())
}

//! The data plane at the end of the daemon: detached or kept.

use crate::{
    app::error::RunError,
    config::daemon::OnExit,
    datapath::{Interface, WriterHandle},
};

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

/// If the start fails, links taken over from an earlier daemon stay, and new ones are detached.
pub(super) fn after_failed_start(interfaces: &[Interface]) -> OnExit {
    let took_over = interfaces.iter().any(|interface| {
        let attached = interface.attached.as_ref();
        attached.is_some_and(|attached| attached.took_over)
    });
    if took_over { OnExit::Keep } else { OnExit::Detach }
}

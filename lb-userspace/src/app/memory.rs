//! Memory that was needed for a moment, and that the allocator would keep.

use std::time::Duration;

use tokio::{task, time};
use tokio_util::sync::CancellationToken;

use crate::control::ControlHandle;

/// Arenas of the allocator at most. It would take one for each thread that allocates, and each keeps what was given back.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 2;

/// Time from a change to giving memory back: changes that follow each other closely need it again.
const AFTER: Duration = Duration::from_secs(1);

/// Gives memory back after the start and some time after changes of the desired state: a file of thousands of services
/// takes a hundred times its length while it is read. Ends with `cancel`, or when control has ended.
pub(super) async fn give_back_after_changes(control: ControlHandle, cancel: CancellationToken) {
    let mut views = control.views();
    let mut seen = None;
    let work = async {
        loop {
            let revision = views.borrow_and_update().desired.revision;
            if seen == Some(revision) {
                if views.changed().await.is_err() {
                    return;
                }
                continue;
            }
            seen = Some(revision);
            time::sleep(AFTER).await;
            // The allocator looks at all it has, which takes some milliseconds.
            if task::spawn_blocking(give_back).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = cancel.cancelled() => {}
        () = work => {}
    }
}

/// Limits the allocator's arenas. To be called before there are threads.
pub(super) fn limit_arenas() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes two numbers; what it refuses stays as it was.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
    }
}

fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes a number, and locks what it looks at.
    unsafe {
        libc::malloc_trim(0);
    }
}

//! Memory that was needed for a moment, and that the allocator would keep.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Notify, task, time};
use tokio_util::sync::CancellationToken;

use crate::control::ControlHandle;

/// Arenas of the allocator at most. It would take one for each thread that allocates, and each keeps what was given back.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 2;

/// Time from a reason to giving memory back: what follows closely needs it again.
const AFTER: Duration = Duration::from_secs(1);

/// Gives memory back after the start, some time after changes of the desired state (a file of thousands of services takes
/// many times its length while it is read), and when clients have `released` much. Ends with `cancel`, or when control
/// has ended.
pub(super) async fn give_back(control: ControlHandle, released: Arc<Notify>, cancel: CancellationToken) {
    let mut views = control.views();
    let mut trimmed_for = None;
    let work = async {
        loop {
            let revision = views.borrow_and_update().desired.revision;
            if trimmed_for == Some(revision) {
                tokio::select! {
                    changed = views.changed() => match changed {
                        Ok(()) => continue,
                        Err(_) => return,
                    },
                    () = released.notified() => {}
                }
            }
            trimmed_for = Some(revision);
            time::sleep(AFTER).await;
            // The allocator looks at all it has, which takes some milliseconds.
            if task::spawn_blocking(trim).await.is_err() {
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

fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes a number, and locks what it looks at.
    unsafe {
        libc::malloc_trim(0);
    }
}

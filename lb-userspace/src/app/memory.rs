//! Memory that was needed for a moment, and that the allocator would keep.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Notify, task, time};
use tokio_util::sync::CancellationToken;

use crate::control::ControlHandle;

/// Maximum arenas of the allocator. By default each thread that allocates has one, and each keeps freed memory.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 2;

/// Delay before memory is given back, since work that follows closely needs it again.
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
    // SAFETY: the call takes two numbers; a refused setting stays unchanged.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
    }
}

fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes a number, and locks the arenas that it reads.
    unsafe {
        libc::malloc_trim(0);
    }
}

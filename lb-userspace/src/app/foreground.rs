//! Commands that work in the foreground.

use std::{io, time::Duration};

use tokio::time;

use super::{
    notify::{Notice, notify},
    signals::Signals,
};

/// Tells the service manager that a command works, and does `work` from time to time until the signal that ends it.
///
/// # Errors
/// Signals cannot be received.
pub fn work_until_end(every: Duration, mut work: impl FnMut()) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let mut ticks = time::interval(every);
        if let Err(error) = notify(Notice::Ready) {
            eprintln!("lb: cannot notify the service manager: {error}");
        }
        loop {
            tokio::select! {
                () = signals.end() => break,
                _ = ticks.tick() => work(),
            }
        }
        // One that does not listen learns it by the end of the process.
        let _ = notify(Notice::Stopping);
        Ok(())
    })
}

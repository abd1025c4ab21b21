//! Commands that work in the foreground.

use std::{
    io::{self, Write},
    time::Duration,
};

use tokio::time;

use super::{
    notify::{Notice, notify},
    signals::Signals,
};

/// Notifies the service manager that the command is ready, and does `work` every so often until a signal ends it.
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
            // Without a reader of stderr the work goes on.
            let _ = writeln!(io::stderr(), "lb: cannot notify the service manager: {error}");
        }
        loop {
            tokio::select! {
                () = signals.end() => break,
                _ = ticks.tick() => work(),
            }
        }
        // A service manager that does not listen sees the process end.
        let _ = notify(Notice::Stopping);
        Ok(())
    })
}

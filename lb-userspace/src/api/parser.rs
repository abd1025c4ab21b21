//! Parsing of configuration files, away from the threads that run everything else.

use std::sync::Arc;

use tokio::{
    sync::Semaphore,
    task::{self, JoinError},
};

/// Length in bytes from which on a text is large. Parsing takes up to 40 times its length in memory.
const LARGE: usize = 1 << 20;

/// Parses on threads for blocking work: of large texts one at a time, and of small ones one beside it.
#[derive(Clone, Debug)]
pub struct FileParser {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

impl Default for FileParser {
    fn default() -> Self {
        let one = || Arc::new(Semaphore::new(1));
        Self {
            small: one(),
            large: one(),
        }
    }
}

impl FileParser {
    /// Runs `parse` on a text of `length` bytes. The next one waits until it is done, also if the caller disconnects
    /// meanwhile.
    ///
    /// # Errors
    /// `parse` panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        length: usize,
        parse: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        let lane = if length < LARGE { &self.small } else { &self.large };
        // The semaphore is never closed.
        let turn = Arc::clone(lane).acquire_owned().await.ok();
        task::spawn_blocking(move || {
            let _turn = turn;
            parse()
        })
        .await
    }
}

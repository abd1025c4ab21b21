//! SIGHUP: the configuration file is read again.

use std::{fs, path::Path, sync::Arc, time::SystemTime};

use super::Daemon;
use crate::{
    chain::chain,
    config::lb::needs_restart,
    config_file::{self, FileError, with_details},
    control::Change,
    state::stored::FileOrder,
};

impl Daemon {
    /// Makes the file's content the desired state. A bad file changes nothing and is reported.
    pub(super) async fn reload(&self, config: Option<&Path>) {
        let Some(path) = config else {
            tracing::warn!("SIGHUP: nothing to reload, since the daemon was started without --config");
            return;
        };
        let result = self.reload_file(path).await;
        self.reloads.count(result.is_ok(), SystemTime::now());
        if let Err(why) = result {
            self.control.refused(why).await;
        }
    }

    /// Makes the content of the file at `path` the desired state, or says why not.
    async fn reload_file(&self, path: &Path) -> Result<(), String> {
        let length = fs::metadata(path).map_or(0, |metadata| metadata.len());
        let file = path.to_owned();
        let read = self
            .parser
            .run(usize::try_from(length).unwrap_or(usize::MAX), move || {
                config_file::read(&file)
            });
        let read = read
            .await
            .map_err(|error| format!("reload failed, nothing was changed: {error}"))?;
        let config = read.map_err(|error| {
            if let FileError::Content { errors, .. } = &error {
                errors.iter().for_each(|error| tracing::error!("{error}"));
            }
            format!("reload refused, nothing was changed: {}", with_details(&error))
        })?;
        for warning in needs_restart(&self.settings, &config.daemon) {
            tracing::warn!("{warning}");
        }
        let change = Change::File(Arc::new(config), FileOrder::Reload);
        let outcome = self.control.change(change, None, false).await.map_err(|error| {
            format!(
                "reload of {} refused, nothing was changed: {}",
                path.display(),
                chain(&error)
            )
        })?;
        tracing::info!(
            revision = outcome.revision.0,
            changed = outcome.changed,
            "reloaded {}",
            path.display()
        );
        Ok(())
    }
}

//! `lb apply`

use std::{fs, path::PathBuf, time::Duration};

use clap::Args;
use hyper::Method;

use super::{
    client::Client,
    error::{CliError, Exit},
    output::Context,
    service::{ChangeFlags, changed_text},
};
use crate::api::{
    requests::{ApplyRequest, Changed},
    types::{Admin, Backend, Service},
};

/// `check` of a service without health checks.
const NO_CHECK: &str = "none";

/// Time between two looks of `--wait`.
const WAIT_POLL: Duration = Duration::from_millis(200);

#[derive(Args, Debug)]
pub(super) struct Apply {
    /// Configuration file
    file: PathBuf,
    /// Print what would change without changing it
    #[arg(long)]
    dry_run: bool,
    /// Accept a file without services, which removes all of them
    #[arg(long)]
    empty: bool,
    /// Return when every service is programmed and every enabled backend has been checked once
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    change: ChangeFlags,
}

impl Apply {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let file = self.file.display().to_string();
        let toml = fs::read_to_string(&self.file)
            .map_err(|error| CliError::new(Exit::Failed, format!("{file}: {error}")))?;
        let request = ApplyRequest {
            file: file.clone(),
            toml,
            dry_run: self.dry_run,
            empty: self.empty,
        };
        let client = context.client();
        let path = self.change.path("/v1/apply".into());
        let changed: Result<Changed, _> = client.change(Method::POST, &path, Some(&request)).await;
        let changed = changed.map_err(|error| error.in_file(&file))?;
        if self.wait && !self.dry_run {
            settled(&client).await?;
        }
        context.show(&changed, changed_text)
    }
}

/// Waits until the desired state is programmed and every backend that may take flows has a health state.
async fn settled(client: &Client) -> Result<(), CliError> {
    loop {
        let services: Vec<Service> = client.get("/v1/services").await?;
        if services.iter().all(is_settled) {
            return Ok(());
        }
        tokio::time::sleep(WAIT_POLL).await;
    }
}

pub(super) fn is_settled(service: &Service) -> bool {
    let judged = |backend: &Backend| {
        backend.last_check.is_some() || backend.admin == Admin::Disabled || backend.removed
    };
    service.programmed && (service.check == NO_CHECK || service.backends.iter().all(judged))
}

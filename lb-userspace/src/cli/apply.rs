//! `lb apply` and `lb diff`

use std::{fs, io, path::PathBuf, time::Duration};

use clap::Args;
use hyper::Method;

use super::{
    client::Client,
    confirm::Confirm,
    error::{CliError, Exit},
    output::Context,
    service::{ChangeFlags, changed_text},
};
use crate::{
    api::{
        requests::{ApplyRequest, Changed},
        types::{Admin, Backend, Service},
    },
    state::removals::MayRemove,
};

/// `check` of a service without health checks.
const NO_CHECK: &str = "none";

/// Time between two looks of `--wait`.
const WAIT_POLL: Duration = Duration::from_millis(200);

/// A file to compare or apply.
#[derive(Args, Debug)]
struct Source {
    /// Configuration file; `-` reads standard input
    file: PathBuf,
    /// Exit with 10 if the state differs from the file
    #[arg(long)]
    exit_code: bool,
    #[command(flatten)]
    change: ChangeFlags,
}

#[derive(Args, Debug)]
pub(super) struct Apply {
    #[command(flatten)]
    source: Source,
    /// Print what would change without changing it
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    confirm: Confirm,
    /// Return when every service is programmed and every enabled backend has been checked once
    #[arg(long)]
    wait: bool,
}

impl Apply {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let client = context.client();
        let request = self.source.read(self.dry_run)?;
        let send = async |may| self.source.send(&client, &request, may).await;
        let changed = self.confirm.send(send).await?;
        if self.wait && !self.dry_run {
            settled(&client).await?;
        }
        self.source.show(context, &changed)
    }
}

#[derive(Args, Debug)]
pub(super) struct Diff {
    #[command(flatten)]
    source: Source,
}

impl Diff {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let request = self.source.read(true)?;
        let may = MayRemove::default();
        let changed = self.source.send(&context.client(), &request, may).await?;
        self.source.show(context, &changed)
    }
}

impl Source {
    /// The request with the file's content, to change the state or to try it.
    fn read(&self, dry_run: bool) -> Result<ApplyRequest, CliError> {
        let (file, read) = if self.file.as_os_str() == "-" {
            ("standard input".to_owned(), io::read_to_string(io::stdin()))
        } else {
            (self.file.display().to_string(), fs::read_to_string(&self.file))
        };
        let toml = read.map_err(|error| CliError::new(Exit::Failed, format!("{file}: {error}")))?;
        Ok(ApplyRequest {
            file,
            toml,
            dry_run,
            allow_empty: false,
            allow_removals: false,
        })
    }

    /// Sends a request with what it may remove.
    async fn send(
        &self,
        client: &Client,
        request: &ApplyRequest,
        may: MayRemove,
    ) -> Result<Changed, CliError> {
        let request = ApplyRequest {
            allow_empty: may.all,
            allow_removals: may.most,
            ..request.clone()
        };
        let path = self.change.path("/v1/apply".into());
        client.change(Method::POST, &path, Some(&request)).await
    }

    /// Prints the effect, and ends with the exit code that was asked for.
    fn show(&self, context: &Context, changed: &Changed) -> Result<(), CliError> {
        context.show(changed, changed_text)?;
        if self.exit_code && changed.changed {
            return Err(CliError::shown(Exit::Warnings));
        }
        Ok(())
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

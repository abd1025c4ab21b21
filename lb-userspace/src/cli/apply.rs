//! `lb apply` and `lb diff`

use std::{io, path::PathBuf};

use clap::Args;
use hyper::Method;

use super::{
    client::Client,
    confirm::Confirm,
    error::{CliError, Exit},
    output::Context,
    service::{ChangeFlags, changed_text},
    wait::{self, Wait},
};
use crate::{
    api::requests::{ApplyRequest, Changed, MoreToml},
    chain::chain,
    config_file::{self, Text},
    state::removals::MayRemove,
};

/// A file to compare or apply.
#[derive(Args, Debug)]
struct Source {
    /// Configuration files, and directories of which each *.toml is one; together they are one configuration; `-` reads
    /// standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
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
    #[command(flatten)]
    wait: Wait,
}

impl Apply {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let client = context.client();
        let request = self.source.read(self.dry_run)?;
        let send = async |may| self.source.send(&client, &request, may).await;
        let changed = self.confirm.send(send).await?;
        let shown = self.source.show(context, &changed);
        if !self.dry_run {
            self.wait
                .until(&client, wait::Changed::Services(&changed.services))
                .await?;
        }
        shown
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
        let mut texts = Vec::new();
        for file in &self.files {
            if file.as_os_str() == "-" {
                let text = io::read_to_string(io::stdin())
                    .map_err(|error| CliError::new(Exit::Failed, format!("standard input: {error}")))?;
                let file = "standard input".to_owned();
                texts.push(Text { file, text });
            } else {
                let read = config_file::texts(std::slice::from_ref(file));
                texts.extend(read.map_err(|error| CliError::new(Exit::Failed, chain(&error)))?);
            }
        }
        let mut texts = texts
            .into_iter()
            .map(|Text { file, text: toml }| MoreToml { file, toml });
        let MoreToml { file, toml } = texts
            .next()
            .ok_or_else(|| CliError::new(Exit::Usage, "no file"))?;
        Ok(ApplyRequest {
            file,
            toml,
            more: texts.collect(),
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

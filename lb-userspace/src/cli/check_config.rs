//! `lb check-config`

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{
    error::{CliError, Exit},
    output::{Context, Output, json, print},
};
use crate::{
    api::requests::PlacedError,
    chain::chain,
    config_file::{self, FileError},
};

#[derive(Args, Debug)]
pub(super) struct CheckConfig {
    /// Configuration file
    file: PathBuf,
}

/// With `-o json`.
#[derive(Serialize)]
struct Report {
    ok: bool,
    errors: Vec<PlacedError>,
}

impl CheckConfig {
    pub(super) fn execute(self, context: &Context) -> Result<(), CliError> {
        let failed = |error: &FileError| CliError::new(Exit::Failed, chain(error));
        match config_file::read(&self.file) {
            Ok(config) => {
                let services = config.desired.services.len();
                let all = config.desired.services.values();
                let backends: usize = all.clone().map(|service| service.backends.len()).sum();
                let hosts: usize = all.map(|service| service.hosts.len()).sum();
                let by_name = match hosts {
                    0 => String::new(),
                    hosts => format!(", {hosts} host names of backends"),
                };
                let report = Report {
                    ok: true,
                    errors: Vec::new(),
                };
                let text = format!(
                    "{}: ok, {services} services, {backends} backends{by_name}\n",
                    self.file.display()
                );
                context.show(&report, |_| text)
            }
            Err(error @ FileError::Read { .. }) => Err(failed(&error)),
            Err(error) => {
                let summary = failed(&error);
                let FileError::Content { errors, .. } = error else {
                    return Err(summary);
                };
                if context.output == Output::Json {
                    let errors = errors.iter().cloned().map(PlacedError::from).collect();
                    print(&json(&Report { ok: false, errors }, true)?)?;
                }
                Err(summary.listing(errors))
            }
        }
    }
}

//! `lb check-config`

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{
    error::{CliError, Exit},
    output::{Context, Output, print},
};
use crate::{
    api::requests::PlacedError,
    chain::chain,
    config::Config,
    config_file::{self, FileError, Text},
};

#[derive(Args, Debug)]
pub(super) struct CheckConfig {
    /// Configuration files, and directories of which each *.toml is one; together they are one configuration
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

/// With `-o json`.
#[derive(Serialize)]
struct Report {
    ok: bool,
    errors: Vec<PlacedError>,
}

impl CheckConfig {
    pub(super) fn execute(self, context: &Context) -> Result<(), CliError> {
        let (_, config) = checked(&self.files, context.output)?;
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
            names(&self.files)
        );
        context.show(&report, |_| text)
    }
}

/// The files of a configuration and what they mean together. Errors are also printed where the output is for programs.
///
/// # Errors
/// A file cannot be read, or has errors.
pub(super) fn checked(files: &[PathBuf], output: Output) -> Result<(Vec<Text>, Config), CliError> {
    let result = config_file::texts(files).and_then(|texts| {
        let config = config_file::parse(&texts)?;
        Ok((texts, config))
    });
    result.or_else(|error| {
        let summary = CliError::new(Exit::Failed, chain(&error));
        match error {
            FileError::Read { .. } | FileError::NoFile { .. } => Err(summary),
            FileError::Content { errors, .. } => {
                if let Some(data) = output.data() {
                    let errors = errors.iter().cloned().map(PlacedError::from).collect();
                    print(&data.whole(&Report { ok: false, errors })?)?;
                }
                Err(summary.listing(errors))
            }
        }
    })
}

fn names(files: &[PathBuf]) -> String {
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    names.join(", ")
}

//! `lb export`

use clap::Args;

use super::{
    error::CliError,
    output::{Context, print},
};

#[derive(Args, Debug)]
pub(super) struct Export {}

impl Export {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        print(&context.client().text("/v1/export").await?)
    }
}

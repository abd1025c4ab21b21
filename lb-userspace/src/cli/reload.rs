//! `lb reload`

use clap::Args;
use hyper::Method;

use super::{error::CliError, output::Context, service::changed_text};
use crate::api::requests::Changed;

#[derive(Args, Debug)]
pub(super) struct Reload {}

impl Reload {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let Self {} = self;
        let client = context.client();
        let changed: Changed = client.change(Method::POST, "/v1/reload", None::<&()>).await?;
        context.show(&changed, changed_text)
    }
}

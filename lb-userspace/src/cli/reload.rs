//! `lb reload`

use clap::Args;
use hyper::Method;

use super::{client::with_query, confirm::Confirm, error::CliError, output::Context, service::changed_text};
use crate::state::removals::MayRemove;

#[derive(Args, Debug)]
pub(super) struct Reload {
    #[command(flatten)]
    confirm: Confirm,
}

impl Reload {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let client = context.client();
        let send = async |may: MayRemove| {
            let flags = [("allow_empty", may.all), ("allow_removals", may.most)];
            let flags = flags.map(|(name, value)| (name, value.then(|| "true".to_owned())));
            let path = with_query("/v1/reload", flags);
            client.change(Method::POST, &path, None::<&()>).await
        };
        let changed = self.confirm.send(send).await?;
        context.show(&changed, changed_text)
    }
}

//! A look at the daemon.

use std::time::Duration;

use crate::{
    api::types::Status,
    cli::{
        client::Client,
        error::{CliError, Exit},
    },
};

/// A daemon that takes longer, and longer than an interval, counts as away.
const LONGEST_ANSWER: Duration = Duration::from_secs(5);

/// One request for everything.
pub(super) async fn look(client: &Client, interval: Duration) -> Result<Status, CliError> {
    let limit = interval.max(LONGEST_ANSWER);
    let answer = tokio::time::timeout(limit, client.get("/v1/status")).await;
    answer.unwrap_or_else(|_| {
        let message = format!("the daemon has not answered for {} s", limit.as_secs());
        Err(CliError::new(Exit::Unreachable, message).hint("see its log, and whether it runs"))
    })
}

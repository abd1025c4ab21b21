//! `lb events`

use std::time::Duration;

use clap::Args;

use super::{
    error::{CliError, Exit},
    output::{Context, Output, print},
};
use crate::{config::values::duration, events::Event};

#[derive(Args, Debug)]
pub(super) struct Events {
    /// Stay and show events as they come
    #[arg(short, long)]
    follow: bool,
    /// Only events of the last so long, for example 10m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    since: Option<Duration>,
}

impl Events {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let mut path = format!("/v1/events?follow={}", self.follow);
        if let Some(since) = self.since {
            path.push_str(&format!("&since_ms={}", since.as_millis()));
        }
        let show = |line: &str| match context.output {
            Output::Json => print(&format!("{line}\n")),
            Output::Table | Output::Wide => print(&plain(&event(line)?)),
        };
        context.client().lines(&path, show).await
    }
}

fn event(line: &str) -> Result<Event, CliError> {
    serde_json::from_str(line)
        .map_err(|error| CliError::new(Exit::Failed, format!("event {line:?}: {error}")))
}

/// One event for people: time, subject, sentence.
fn plain(event: &Event) -> String {
    let subject = match (&event.service, &event.backend) {
        (Some(service), Some(backend)) => format!("{service}/{backend}: "),
        (Some(service), None) => format!("{service}: "),
        (None, _) => String::new(),
    };
    format!("{}  {subject}{}\n", event.at, event.message)
}

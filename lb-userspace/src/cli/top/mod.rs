//! `lb top`

mod columns;
mod keys;
mod look;
mod model;
mod report;
mod rows;
mod screen;
mod text;
mod view;

use std::{
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};

use clap::Args;

use self::{look::look, report::Report};
use super::{
    client::Client,
    error::{CliError, Exit},
    output::{Context, Data, Outage, print, print_while_read},
};
use crate::{api::rates::Sample, config::values::duration};

/// Shortest interval: a look at the daemon reads all its counters.
const LEAST_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  lb top                              full screen, until q; ? shows the keys
  lb top --interval 5s                a look at the daemon every 5 seconds
  lb top --once -o json               one sample, with the rates of the last second
  lb top -o json                      one sample a line, until interrupted")]
pub(super) struct Top {
    /// Time between two looks at the daemon, over which rates are measured
    #[arg(long, value_name = "INTERVAL", default_value = "1s", value_parser = duration)]
    interval: Duration,
    /// Print one sample, made of two looks an interval apart, and end
    #[arg(long)]
    once: bool,
}

impl Top {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let interval = self.interval.max(LEAST_INTERVAL);
        let client = context.client();
        let data = context.output.data();
        if !self.once && data.is_none() && !io::stdout().is_terminal() {
            return Err(CliError::new(Exit::Usage, "output: no terminal")
                .hint("`lb top --once` prints one sample; with `-o json` for programs"));
        }
        let first = Sample::since(None, look(&client, interval).await?, Instant::now());
        if self.once {
            tokio::time::sleep(interval).await;
            let status = look(&client, interval).await?;
            let sample = Sample::since(Some(&first), status, Instant::now());
            return match data {
                Some(data) => print(&data.whole(&Report::of(&sample))?),
                None => print(&report::table(&sample, context.style)),
            };
        }
        match data {
            Some(data) => stream(&client, interval, first, data).await,
            None => screen::run(client, interval, first, context.style.colour).await,
        }
    }
}

/// A line of JSON, or a document of YAML, for each interval.
async fn stream(client: &Client, interval: Duration, first: Sample, data: Data) -> Result<(), CliError> {
    let mut outage = Outage::default();
    outage.answered();
    let mut before = first;
    loop {
        tokio::time::sleep(interval).await;
        let Some(status) = outage.bridge(look(client, interval).await)? else {
            continue;
        };
        let sample = Sample::since(Some(&before), status, Instant::now());
        if print_while_read(&data.one_of_many(&Report::of(&sample))?)?.is_break() {
            return Ok(());
        }
        before = sample;
    }
}

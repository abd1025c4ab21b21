//! `lb events`

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use clap::Args;

use super::{
    client::with_query,
    error::{CliError, Exit},
    fit::Extent,
    local_time::{age, beside_utc},
    output::{Context, Outage, print_while_read},
};
use crate::{config::values::duration, events::Event};

/// Time between attempts to reach a daemon that does not answer.
const RECONNECT: Duration = Duration::from_millis(500);

#[derive(Args, Debug)]
pub(super) struct Events {
    /// Keep running and show new events
    #[arg(short, long)]
    follow: bool,
    /// Only events of this last time, for example 10m or 2d; also from before the daemon started
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    since: Option<Duration>,
    /// Only events that this user caused; also from before the daemon started
    #[arg(long, value_name = "USER")]
    who: Option<String>,
}

impl Events {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let client = context.client();
        let began = Instant::now();
        let (mut shown, mut outage) = (Shown::default(), Outage::default());
        loop {
            // Who follows without a wish begins now.
            let since = self.since.or(self.follow.then_some(Duration::ZERO));
            // Includes events since the command began, also after a reconnect.
            let since = since.map(|since| (since + began.elapsed()).as_millis().to_string());
            let query = [
                ("follow", Some(self.follow.to_string())),
                ("since_ms", since),
                ("who", self.who.clone()),
            ];
            let path = with_query("/v1/events", query);
            let show = |line: &str| {
                outage.answered();
                let event = event(line)?;
                if !shown.is_new(&event) {
                    return Ok(ControlFlow::Continue(()));
                }
                match context.output.data() {
                    Some(data) => print_while_read(&data.line(line)?),
                    None => print_while_read(&plain(&event, context.style.extent, self.follow)),
                }
            };
            let read = client.lines(&path, show).await;
            if !self.follow {
                return read.map(drop);
            }
            match outage.bridge(read)? {
                Some(ControlFlow::Break(())) => return Ok(()),
                Some(ControlFlow::Continue(())) => outage.left("the daemon has ended the stream"),
                None => {}
            }
            tokio::time::sleep(RECONNECT).await;
        }
    }
}

/// Which events were shown. Another daemon counts from 1 again, but later.
#[derive(Default)]
struct Shown {
    seq: u64,
    at: String,
}

impl Shown {
    fn is_new(&mut self, event: &Event) -> bool {
        let new = event.seq > self.seq || event.at > self.at;
        if new {
            self.seq = event.seq;
            self.at.clone_from(&event.at);
        }
        new
    }
}

fn event(line: &str) -> Result<Event, CliError> {
    serde_json::from_str(line)
        .map_err(|error| CliError::new(Exit::Failed, format!("event {line:?}: {error}")))
}

/// One event for people: time, subject, sentence. On a terminal with local time, and its age unless it is new.
fn plain(event: &Event, extent: Extent, is_new: bool) -> String {
    let subject = match (&event.service, &event.backend) {
        (Some(service), Some(backend)) => format!("{service}/{backend}: "),
        (Some(service), None) => format!("{service}: "),
        (None, _) => String::new(),
    };
    let by = event.by.as_ref();
    let by = by.map_or_else(String::new, |by| format!(" (by {by})"));
    let mut times = vec![event.at.clone()];
    if extent.has_ages() {
        times.extend(beside_utc(&event.at));
        let ago = age(&event.at).filter(|_| !is_new);
        times.extend(ago.map(|age| format!("{:>8}", format!("{age} ago"))));
    }
    extent.fold(&format!("{}  {subject}{}{by}\n", times.join("  "), event.message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::EventKind;

    #[test]
    fn an_event_keeps_its_form_for_programs_and_fits_into_a_terminal() {
        let event = Event {
            seq: 1,
            at: "2026-01-01T00:00:00.123Z".into(),
            kind: EventKind::Health,
            service: Some("web".into()),
            backend: Some("a-backend-with-a-name-of-its-own".into()),
            revision: 3,
            message: "down: connection refused by [2001:db8::1234]:8080 and nothing else".into(),
            by: None,
        };
        let subject = "web/a-backend-with-a-name-of-its-own: down: connection refused by [2001:db8::1234]:8080 and nothing else";
        assert_eq!(
            plain(&event, Extent::Usual, false),
            format!("{}  {subject}\n", event.at)
        );
        let shown = plain(&event, Extent::Window(80), false);
        assert!(
            shown.lines().count() > 1 && shown.contains(" ago  web/"),
            "{shown}"
        );
        for line in shown.lines() {
            assert!(line.chars().count() <= 80, "{shown}");
        }
        assert!(!plain(&event, Extent::Window(80), true).contains(" ago"));
    }
}

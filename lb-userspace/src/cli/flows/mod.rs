//! `lb flows`

mod printer;

use std::{
    cell::Cell,
    io::{self, IsTerminal as _},
};

use clap::{Args, Subcommand};
use hyper::Method;

use self::printer::Printer;
use super::{
    client::{Client, with_query},
    error::{CliError, Exit},
    output::{Context, Watch, ask, remark},
    table::{Table, name, number},
    whole_number::whole_number,
};
use crate::{
    api::types::{self, FlowCount, FlowGroups, FlowOrder, FlowSelection, FlowStates, Flushed, Service},
    config::values,
    datapath::FlowState,
    state::{
        guard::Prefix,
        names::{BackendName, ServiceName},
        words::Word,
    },
};

/// Services without records that a remark lists at most.
const LISTED: usize = 8;

#[derive(Subcommand, Debug)]
pub(super) enum FlowsCommand {
    /// List flows, each with its client, backend, source at the backend, state, age, idle time and slot
    List {
        #[command(flatten)]
        selection: Selection,
        /// age (oldest first), idle (longest first) or client; without it in no order
        #[arg(long, value_name = "ORDER", value_parser = types::order)]
        sort: Option<FlowOrder>,
        /// Only this many
        #[arg(long, value_name = "N", value_parser = whole_number::<usize>(..))]
        limit: Option<usize>,
    },
    /// Count flows, by state and by service, backend or client
    Count {
        #[command(flatten)]
        selection: Selection,
        /// service, backend or client
        #[arg(long, value_name = "WHAT", value_parser = values::word::<FlowGroups>)]
        by: Option<FlowGroups>,
        /// Only this many groups, the largest [default: 1000]
        #[arg(long, value_name = "N", value_parser = whole_number::<usize>(..))]
        limit: Option<usize>,
        #[command(flatten)]
        watch: Watch,
    },
    /// Remove flows: their next packets find them unknown, and TCP connections of mode nat are reset
    Flush {
        #[command(flatten)]
        selection: Selection,
        /// Flows of all services
        #[arg(long)]
        all: bool,
        /// Only count them
        #[arg(long)]
        dry_run: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// Which flows are meant.
#[derive(Args, Debug)]
pub(super) struct Selection {
    /// Only flows of this service
    #[arg(long, value_name = "SERVICE")]
    service: Option<ServiceName>,
    /// Only flows of this backend
    #[arg(long, value_name = "BACKEND")]
    backend: Option<BackendName>,
    /// Only flows of clients with this address or prefix
    #[arg(long, value_name = "PREFIX", value_parser = values::prefix)]
    client: Option<Prefix>,
    /// Only flows in this state: opening, established, closing or closed
    #[arg(long, value_name = "STATE", value_parser = values::word::<FlowState>)]
    state: Option<FlowState>,
}

impl FlowsCommand {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        match self {
            Self::List {
                selection,
                sort,
                limit,
            } => list(&selection, sort, limit, context).await,
            Self::Count {
                selection,
                by,
                limit,
                watch,
            } => count(&selection, by, limit, watch, context).await,
            Self::Flush {
                selection,
                all,
                dry_run,
                yes,
            } => flush(&selection, all, dry_run, yes, context).await,
        }
    }
}

impl Selection {
    /// The same by names, as the API has it.
    fn named(&self) -> FlowSelection {
        let Self {
            service,
            backend,
            client,
            state,
        } = self;
        FlowSelection {
            service: service.as_ref().map(ToString::to_string),
            backend: backend.as_ref().map(ToString::to_string),
            client: client.map(|prefix| prefix.to_string()),
            state: state.map(|state| state.word().to_owned()),
        }
    }

    fn parts(&self) -> Vec<(&'static str, String)> {
        let FlowSelection {
            service,
            backend,
            client,
            state,
        } = self.named();
        let parts = [
            ("service", service),
            ("backend", backend),
            ("client", client),
            ("state", state),
        ];
        let given = parts.into_iter().filter_map(|(name, value)| Some((name, value?)));
        given.collect()
    }

    /// The path of a request about these flows, with more values.
    fn path(&self, base: &str, more: impl IntoIterator<Item = (&'static str, Option<String>)>) -> String {
        let parts = self.parts().into_iter();
        with_query(base, parts.map(|(name, value)| (name, Some(value))).chain(more))
    }

    /// `1,234 flows of service web, state closed`
    fn text(&self, flows: u64) -> String {
        let parts = self.parts().into_iter();
        let of: Vec<String> = parts.map(|(name, value)| format!("{name} {value}")).collect();
        let noun = if flows == 1 { "flow" } else { "flows" };
        match of.is_empty() {
            true => format!("{} {noun} of all services", grouped(flows)),
            false => format!("{} {noun} of {}", grouped(flows), of.join(", ")),
        }
    }

    /// Says which services do not record all of their flows, so that an empty table is not taken for "no flows".
    async fn remark(&self, client: &Client, is_empty: bool) -> Result<(), CliError> {
        let services: Vec<Service> = match &self.service {
            Some(name) => vec![client.get(&format!("/v1/services/{name}")).await?],
            None if is_empty => client.get("/v1/services").await?,
            None => return Ok(()),
        };
        if let Some(text) = unrecorded(&services) {
            remark(&text);
        }
        Ok(())
    }
}

/// A remark about services of which not all flows are recorded, if there are any.
fn unrecorded(services: &[Service]) -> Option<String> {
    let changing = services
        .iter()
        .filter(|service| service.recorded_flows == "changing");
    let mut names: Vec<String> = changing
        .map(|service| format!("{} ({})", service.name, service.mode))
        .collect();
    let (first, count) = (names.first()?.clone(), names.len());
    if count == 1 {
        return Some(format!(
            "note: service {first} records only flows whose slot changed hands; tracking = \"full\" records all"
        ));
    }
    names.truncate(LISTED);
    if count > LISTED {
        names.push(format!("and {} more", count - LISTED));
    }
    Some(format!(
        "note: these services record only flows whose slot changed hands: {}; tracking = \"full\" records all",
        names.join(", ")
    ))
}

async fn list(
    selection: &Selection,
    sort: Option<FlowOrder>,
    limit: Option<usize>,
    context: &Context,
) -> Result<(), CliError> {
    let more = [
        ("sort", sort.map(|sort| sort.word().to_owned())),
        ("limit", limit.map(|limit| limit.to_string())),
    ];
    let path = selection.path("/v1/flows", more);
    let client = context.client();
    let mut printer = Printer::new(context);
    let read = client.lines(&path, |line| printer.line(line)).await?;
    if read.is_break() || printer.end()?.is_break() {
        return Ok(());
    }
    selection.remark(&client, printer.flows == 0).await
}

async fn count(
    selection: &Selection,
    by: Option<FlowGroups>,
    limit: Option<usize>,
    watch: Watch,
    context: &Context,
) -> Result<(), CliError> {
    let more = [
        ("by", by.map(|by| by.word().to_owned())),
        ("limit", limit.map(|limit| limit.to_string())),
    ];
    let path = selection.path("/v1/flows/count", more);
    let client = context.client();
    let is_empty = Cell::new(false);
    let fetch = async || {
        let counted: FlowCount = client.get(&path).await?;
        is_empty.set(counted.flows == 0);
        Ok(counted)
    };
    context
        .show_watched(watch, fetch, |counted| count_text(counted, by, context))
        .await?;
    selection.remark(&client, is_empty.get()).await
}

fn count_text(counted: &FlowCount, by: Option<FlowGroups>, context: &Context) -> String {
    let FlowCount {
        flows,
        states,
        groups,
        rest,
        exact,
    } = counted;
    let Some(by) = by else {
        let FlowStates {
            opening,
            established,
            closing,
            closed,
        } = states;
        return format!(
            "{flows} flows: {opening} opening, {established} established, {closing} closing, {closed} closed\n"
        );
    };
    let mut columns = match by {
        FlowGroups::Service => vec![name("SERVICE", 10)],
        FlowGroups::Backend => vec![name("SERVICE", 10), name("BACKEND", 10)],
        FlowGroups::Client => vec![name("CLIENT", 21)],
    };
    columns.push(number("FLOWS"));
    let mut table = Table::new(&columns);
    for group in groups {
        let names = [&group.service, &group.backend, &group.client];
        let names = names.into_iter().flatten().map(|name| name.as_str().into());
        table.row(names.chain([group.flows.to_string().into()]));
    }
    let mut text = table.render(context.style);
    if *rest > 0 {
        text.push_str(&format!("and {rest} more flows\n"));
    }
    if !exact {
        text.push_str("there are too many clients to count each of them: some are left out\n");
    }
    text
}

async fn flush(
    selection: &Selection,
    all: bool,
    dry_run: bool,
    yes: bool,
    context: &Context,
) -> Result<(), CliError> {
    let is_meant = all || dry_run || !selection.parts().is_empty();
    if !is_meant && (yes || !io::stdin().is_terminal()) {
        return Err(
            CliError::new(Exit::Usage, "flush would remove the flows of all services")
                .hint("name flows with --service, --backend, --client or --state, or give --all"),
        );
    }
    let client = context.client();
    let send = async |more: &'static str| -> Result<Flushed, CliError> {
        let path = selection.path("/v1/flows", [(more, Some("true".to_owned()))]);
        client.change(Method::DELETE, &path, None::<&()>).await
    };
    if !dry_run && !yes {
        if !io::stdin().is_terminal() {
            return Err(
                CliError::new(Exit::Usage, "flush asks first, and stdin is no terminal")
                    .hint("give --yes to flush without a question, or --dry-run to count"),
            );
        }
        let counted = send("dry_run").await?;
        let question = format!("flush {}?", selection.text(counted.flows));
        if counted.flows > 0 && !ask(&question)? {
            return Err(CliError::new(Exit::Failed, "not confirmed: no flow was flushed"));
        }
    }
    // A filter narrows what `all` allows.
    let flushed = send(if dry_run { "dry_run" } else { "all" }).await?;
    let did = if dry_run { "would flush" } else { "flushed" };
    context.show(&flushed, |flushed| {
        format!("{did} {}\n", selection.text(flushed.flows))
    })?;
    selection.remark(&client, flushed.flows == 0).await
}

/// A number with commas: `1,234`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_says_what_it_removes() {
        let selection = |service: Option<&str>, client: Option<&str>| Selection {
            service: service.map(|name| name.parse().unwrap()),
            backend: None,
            client: client.map(|prefix| prefix.parse().unwrap()),
            state: None,
        };
        for (selection, flows, text) in [
            (
                selection(None, None),
                1_234_567,
                "1,234,567 flows of all services",
            ),
            (selection(Some("web"), None), 1, "1 flow of service web"),
            (
                selection(Some("web"), Some("2001:db8::/32")),
                0,
                "0 flows of service web, client 2001:db8::/32",
            ),
        ] {
            assert_eq!(selection.text(flows), text);
        }
        assert_eq!([999, 1_000].map(grouped), ["999", "1,000"]);
    }
}

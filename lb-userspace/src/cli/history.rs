//! `lb history` and `lb rollback`

use clap::Args;
use hyper::Method;

use super::{
    client::with_query,
    confirm::Confirm,
    error::CliError,
    fit::Extent,
    local_time::{age, beside_utc, second, with_age},
    output::{Context, Output},
    service::{ChangeFlags, changed_text},
    table::{Cell, Table, Tone, name, number, sentence, text},
    whole_number::whole_number,
};
use crate::{
    api::history::{PastRevision, RollbackRequest},
    state::removals::MayRemove,
};

#[derive(Args, Debug)]
pub(super) struct History {
    /// Show all that this revision changed
    #[arg(value_parser = whole_number::<u64>(..))]
    revision: Option<u64>,
    /// How many revisions to show
    #[arg(long, value_name = "N", default_value_t = 20, conflicts_with = "revision", value_parser = whole_number::<usize>(..))]
    limit: usize,
}

impl History {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let query = match self.revision {
            Some(revision) => ("revision", revision.to_string()),
            None => ("limit", self.limit.to_string()),
        };
        let path = with_query("/v1/history", [(query.0, Some(query.1))]);
        let revisions: Vec<PastRevision> = context.client().get(&path).await?;
        let whole = self.revision.is_some();
        context.show(&revisions, |revisions| match revisions.as_slice() {
            several if context.output == Output::Name => {
                let names = several.iter().map(|revision| revision.revision.to_string());
                context.names_or(names, String::new)
            }
            [only] if whole => context.style.extent.fold(&differences(only, context)),
            several => table(several, context),
        })
    }
}

#[derive(Args, Debug)]
pub(super) struct Rollback {
    /// Revision to go back to [default: the one before the revision in force]
    #[arg(value_parser = whole_number::<u64>(..))]
    to: Option<u64>,
    /// Print what would change without changing it
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    confirm: Confirm,
    #[command(flatten)]
    change: ChangeFlags,
}

impl Rollback {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let client = context.client();
        let path = self.change.path("/v1/rollback".into());
        let send = async |may: MayRemove| {
            let request = RollbackRequest {
                revision: self.to,
                dry_run: self.dry_run,
                allow_empty: may.all,
                allow_removals: may.most,
            };
            client.change(Method::POST, &path, Some(&request)).await
        };
        let changed = self.confirm.send(send).await?;
        context.show(&changed, changed_text)
    }
}

fn table(revisions: &[PastRevision], context: &Context) -> String {
    let mut table = Table::new(&[
        number("REVISION"),
        text("SAVED").rank(1),
        text("LOCAL").extra(3),
        number("AGE").extra(2),
        name("BY", 8).rank(4),
        text("NOW").rank(5),
        sentence("CHANGES", 24),
    ]);
    let extent = context.style.extent;
    for revision in revisions {
        let mut lines = revision.diff.as_deref().unwrap_or_default().iter();
        let first = match (&revision.diff, lines.next()) {
            (None, _) => "(the revision before is not kept)".to_owned(),
            (Some(_), None) => "none".to_owned(),
            (Some(_), Some(first)) => first.clone(),
        };
        let more = lines.len() + revision.more;
        let changes = match more {
            0 => first,
            more => format!("{first} (and {more} more)"),
        };
        let (in_force, tone) = match revision.present {
            true => ("yes", Tone::Good),
            false => ("", Tone::Plain),
        };
        let saved = match extent {
            Extent::Window(_) => second(&revision.at),
            Extent::Usual | Extent::All => revision.at.clone(),
        };
        table.row([
            Cell::new(revision.revision.to_string(), tone),
            Cell::from(saved),
            Cell::from(beside_utc(&revision.at).unwrap_or_default()),
            Cell::from(age(&revision.at).unwrap_or_default()),
            Cell::from(by(revision).unwrap_or_else(|| "-".to_owned())),
            Cell::new(in_force, tone),
            Cell::from(changes),
        ]);
    }
    table.render(context.style)
}

/// Who made a revision; `None` if no command did.
fn by(revision: &PastRevision) -> Option<String> {
    revision.by.as_ref().map(ToString::to_string)
}

/// All differences of one revision from the one before.
fn differences(revision: &PastRevision, context: &Context) -> String {
    let by = by(revision).map_or_else(String::new, |by| format!(" by {by}"));
    let saved = with_age(&revision.at, context.style.extent);
    let mut text = format!("revision {}, saved {saved}{by}\n", revision.revision);
    match revision.diff.as_deref() {
        None => text.push_str("no revision before it is kept\n"),
        Some([]) => text.push_str("no changes\n"),
        Some(lines) => lines.iter().for_each(|line| {
            text.push_str(line);
            text.push('\n');
        }),
    }
    if revision.more > 0 {
        text.push_str(&format!("and {} more\n", revision.more));
    }
    text
}

//! `docs/configuration.md`: every key of the configuration file.

use clap::{Command, CommandFactory};

use super::{cell, check};
use crate::{
    cli::Cli,
    config::keys::{self, Absent, Key, KeyTable},
};

const INTRODUCTION: &str = "\
# Configuration reference

Generated from `lb-userspace/crates/model/src/config/keys` by `cargo xtask docs`. [example.toml](example.toml) shows every key in a file.
`lb check-config FILE` names every error at once, with line, column and a hint; [restarts.md](restarts.md) says when a file
takes effect.

A configuration may have several files: `lb run --config`, `lb apply`, `lb diff` and `lb check-config` take files and directories. Of a
directory, each file whose name ends in `.toml` and does not begin with a dot counts, in the order of the names. `[lb]` stands in one of
the files at most, and each service in one; errors name the file. `version = 1` at the top of a file is its form, and that of a file
without it; `lb migrate FILE` writes it.

Durations are written as `\"500ms\"`, `\"2s\"`, `\"10m\"`, `\"2h4m\"` or `\"1d\"`. *Option* is the option of `lb run`, `lb service add`
and `set`, or `lb backend add` and `set` that sets the same.
";

/// The command whose options set the keys of a table, and the prefix of the options.
fn command_of(table: &KeyTable) -> Option<(&'static [&'static str], &'static str)> {
    const SERVICE: &[&str] = &["service", "add"];
    match table.header {
        header if header == keys::LB.header => Some((&["run"], "")),
        header if header == keys::SERVICE.header || header == keys::GUARD.header => Some((SERVICE, "")),
        header if header == keys::HEALTH.header => Some((SERVICE, "check-")),
        header if header == keys::AGENT.header => Some((SERVICE, "agent-")),
        header if header == keys::BACKEND.header => Some((&["backend", "add"], "")),
        _ => None,
    }
}

#[test]
fn the_configuration_reference_is_what_the_keys_say() {
    let mut lb = Cli::command();
    lb.build();
    let mut page = INTRODUCTION.to_owned();
    for table in keys::TABLES {
        page.push_str(&format!("\n## `{}`\n\n{}\n", table.header, table.about));
        if table.header == keys::ALSO.header {
            continue;
        }
        let of_kinds = |key: &&Key| keys::ALSO.key(key.name).is_some() && key.name != "kind";
        let is_health = table.header == keys::HEALTH.header;
        let (own, common): (Vec<&Key>, Vec<&Key>) =
            table.keys.iter().partition(|key| is_health && of_kinds(key));
        let rows = |keys: &[&Key], page: &mut String| {
            for key in keys {
                page.push_str(&row(key, &option(&lb, table, key), is_health && of_kinds(key)));
            }
        };
        page.push_str("\n| key | value | default | meaning | option |\n|---|---|---|---|---|\n");
        rows(&common, &mut page);
        if !own.is_empty() {
            page.push_str("\nKeys of some kinds of check:\n\n");
            page.push_str(
                "| key | kinds | value | default | meaning | option |\n|---|---|---|---|---|---|\n",
            );
            rows(&own, &mut page);
        }
    }
    check("configuration.md", page.trim_end());
}

fn row(key: &Key, option: &str, with_kinds: bool) -> String {
    let default = match key.absent {
        Absent::Required(_) => "required".to_owned(),
        Absent::Default(text) => format!("`{text}`"),
        Absent::Otherwise(words, _) => words.to_owned(),
    };
    let kinds = if with_kinds {
        format!("{} | ", key.kinds.join(", "))
    } else {
        String::new()
    };
    let meaning = format!("{}. {}", key.help, key.more);
    format!(
        "| `{}` | {kinds}{} | {} | {} | {option} |\n",
        key.name,
        cell(&key.value.about()),
        cell(&default),
        cell(meaning.trim_end()),
    )
}

/// The option that sets a key.
fn option(lb: &Command, table: &KeyTable, key: &Key) -> String {
    let Some((path, prefix)) = command_of(table) else {
        return String::new();
    };
    let command = path
        .iter()
        .try_fold(lb, |command, name| command.find_subcommand(name))
        .unwrap();
    let mut arguments = command.get_arguments();
    match key.option_name(prefix) {
        Some(name) if arguments.any(|argument| argument.get_long() == Some(name.as_str())) => {
            format!("`--{name}`")
        }
        Some(_) | None => String::new(),
    }
}

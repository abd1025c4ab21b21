//! `docs/commands.md`: the help of every command.

use clap::{Command, CommandFactory};

use super::check;
use crate::cli::Cli;

const INTRODUCTION: &str = "\
# Command reference

Generated from the command line of `lb` by `cargo xtask docs`. From a checkout, `cargo lb …` is the same as `lb …`.

Every command also takes the global options of `lb`. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no such service or backend,
4 conflict (it exists, or the revision has moved on), 5 daemon not reachable, 6 `--timeout` passed, 10 warnings (`lb doctor`) or differences
(`--exit-code`).

";

#[test]
fn command_reference_matches_the_command_line() {
    let mut page = INTRODUCTION.to_owned();
    let mut lb = Cli::command();
    lb.build();
    describe(&lb, "lb", &mut page);
    check("commands.md", page.trim_end());
}

fn describe(command: &Command, path: &str, page: &mut String) {
    // Wrapped as on a terminal of usual width, and with the command's whole path in the usage line.
    let help = command
        .clone()
        .bin_name(path)
        .term_width(100)
        .render_help()
        .to_string();
    let help = match path {
        "lb" => help.as_str(),
        _ => help.split("\nGlobal options:").next().unwrap_or_default(),
    };
    page.push_str(&format!("## `{path}`\n\n```text\n{}\n```\n\n", trimmed(help)));
    for below in command
        .get_subcommands()
        .filter(|below| below.get_name() != "help")
    {
        describe(below, &format!("{path} {}", below.get_name()), page);
    }
}

/// Without white space at the ends of lines.
fn trimmed(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().map(str::trim_end).collect();
    lines.join("\n")
}

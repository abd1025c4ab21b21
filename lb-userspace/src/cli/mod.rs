//! The command line: one file per group of verbs.

mod agent;
mod apply;
mod backend;
mod check_config;
pub(crate) mod client;
mod completions;
mod confirm;
mod decap;
mod detach;
mod doctor;
pub mod error;
mod events;
mod explain;
mod export;
mod filter;
mod fit;
mod flows;
mod guard;
mod help;
mod history;
mod import;
mod left;
mod local_time;
mod man;
mod man_of_file;
mod migrate;
mod monitor;
mod options;
mod output;
mod progress;
mod reload;
mod remote;
mod run;
mod service;
mod status;
mod support_bundle;
mod table;
mod tables;
mod top;
mod usage;
mod wait;
mod whole_number;
mod yaml;

use std::path::PathBuf;

use clap::{ArgAction, CommandFactory, Parser, Subcommand};

pub use self::client::DEFAULT_SOCKET;
use self::{
    error::{CliError, Exit},
    output::{Colour, Context, Output},
};

/// Layer 4 load balancer: XDP data plane, health checks, metrics, in one program.
#[derive(Parser, Debug)]
#[command(name = "lb", version, max_term_width = 100)]
pub struct Cli {
    /// The daemon's socket [default: /run/lb/lb.sock]
    #[arg(
        long,
        global = true,
        env = "LB_SOCKET",
        hide_env_values = true,
        value_name = "PATH",
        help_heading = "Global options"
    )]
    socket: Option<PathBuf>,
    #[command(flatten)]
    remote: remote::RemoteOptions,
    /// table, wide (all columns), name (names alone), json or yaml [default: table]
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t,
        hide_default_value = true,
        hide_possible_values = true,
        value_name = "FORMAT",
        help_heading = "Global options"
    )]
    output: Output,
    /// Colours: auto (on a terminal, without NO_COLOR), always or never [default: auto]
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        hide_default_value = true,
        hide_possible_values = true,
        value_name = "WHEN",
        help_heading = "Global options"
    )]
    color: Colour,
    /// Print tables without their header line
    #[arg(long, global = true, action = ArgAction::SetTrue, help_heading = "Global options")]
    no_headers: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Attach to interfaces and balance, in the foreground
    Run(Box<run::Run>),
    /// Replace the desired state by a file
    Apply(apply::Apply),
    /// Show what applying a file would change
    Diff(apply::Diff),
    /// Have the daemon read its configuration file again, and wait until that is in force
    Reload(reload::Reload),
    /// Check a configuration file and show every error
    CheckConfig(check_config::CheckConfig),
    /// Rewrite configuration files of an older form in the present one
    Migrate(migrate::Migrate),
    /// Print the desired state as a configuration file
    Export(export::Export),
    /// Write a configuration of HAProxy, keepalived or IPVS as a configuration file
    Import(import::Import),
    /// Show the latest revisions of the desired state, and what each changed
    History(history::History),
    /// Go back to an earlier revision of the desired state
    Rollback(history::Rollback),
    /// Show the daemon, its interfaces, services and backends, and problems
    Status(status::StatusCommand),
    /// List and change services
    #[command(subcommand, visible_alias = "svc")]
    Service(Box<service::ServiceCommand>),
    /// List and change the backends of services
    #[command(subcommand)]
    Backend(backend::BackendCommand),
    /// Show events
    Events(events::Events),
    /// List, count and remove flows
    #[command(subcommand)]
    Flows(flows::FlowsCommand),
    /// Explain what would happen to a packet, or what a reason means
    Explain(explain::Explain),
    /// Show packets as they come, what happens to them and why
    Monitor(monitor::Monitor),
    /// Show rates, health and drops live, full screen; drain and enable backends
    Top(top::Top),
    /// Find what is wrong with machine, interfaces, addresses and ways to backends, with remedies
    Doctor(doctor::Doctor),
    /// Pack what support needs into one file, without credentials; also where no daemon runs
    SupportBundle(support_bundle::SupportBundle),
    /// Remove programs, links and pins that a kept or killed daemon left
    Detach(detach::Detach),
    /// Decapsulate tunnels of modes ipip and gue on a backend, in the foreground
    Decap(decap::Decap),
    /// Print a completion script for a shell
    Completions(completions::Completions),
    /// Write manual pages, one for each command
    Man(man::Man),
}

impl Cli {
    /// Runs the command.
    pub fn execute(self) -> Result<(), CliError> {
        let remote = self.remote.remote()?;
        let context = Context::new(self.socket, remote, self.output, self.color, !self.no_headers);
        if self.output == Output::Name && !self.command.has_names() {
            // Before anything is changed.
            return Err(
                CliError::new(Exit::Usage, "-o name: this command has no list of names").hint(
                    "status, service list, service show, backend list, history and explain have; see -o json",
                ),
            );
        }
        match self.command {
            Command::Run(run) => run.execute(&context),
            Command::Apply(apply) => context.block_on(apply.execute(&context)),
            Command::Diff(diff) => context.block_on(diff.execute(&context)),
            Command::Reload(reload) => context.block_on(reload.execute(&context)),
            Command::CheckConfig(check) => check.execute(&context),
            Command::Migrate(migrate) => migrate.execute(context.output),
            Command::Export(export) => context.block_on(export.execute(&context)),
            Command::Import(import) => import.execute(&context),
            Command::History(history) => context.block_on(history.execute(&context)),
            Command::Rollback(rollback) => context.block_on(rollback.execute(&context)),
            Command::Status(status) => context.block_on(status.execute(&context)),
            Command::Service(service) => context.block_on(service.execute(&context)),
            Command::Backend(backend) => context.block_on(backend.execute(&context)),
            Command::Events(events) => context.block_on(events.execute(&context)),
            Command::Flows(flows) => context.block_on(flows.execute(&context)),
            Command::Explain(explain) => context.block_on(explain.execute(&context)),
            Command::Monitor(monitor) => context.block_on(monitor.execute(&context)),
            Command::Top(top) => context.block_on(top.execute(&context)),
            Command::Doctor(doctor) => context.block_on(doctor.execute(&context)),
            Command::SupportBundle(bundle) => context.block_on(bundle.execute(&context)),
            Command::Detach(detach) => detach.execute(&context),
            Command::Decap(decap) => decap.execute(&context),
            Command::Completions(completions) => completions.execute(),
            Command::Man(man) => man.execute(Self::command()),
        }
    }
}

impl Command {
    /// Whether its output can be names alone.
    fn has_names(&self) -> bool {
        match self {
            Self::Status(_) | Self::History(_) => true,
            Self::Service(service) => service.has_names(),
            Self::Backend(backend) => backend.has_names(),
            Self::Explain(explain) => explain.has_names(),
            Self::Run(_)
            | Self::Apply(_)
            | Self::Diff(_)
            | Self::Reload(_)
            | Self::CheckConfig(_)
            | Self::Migrate(_)
            | Self::Export(_)
            | Self::Import(_)
            | Self::Rollback(_)
            | Self::Events(_)
            | Self::Flows(_)
            | Self::Monitor(_)
            | Self::Top(_)
            | Self::Doctor(_)
            | Self::SupportBundle(_)
            | Self::Detach(_)
            | Self::Decap(_)
            | Self::Completions(_)
            | Self::Man(_) => false,
        }
    }
}

/// Answers a shell and ends the process, where a shell's script has called.
pub fn answer_shell() {
    completions::answer_shell(Cli::command);
}

#[cfg(test)]
mod tests;

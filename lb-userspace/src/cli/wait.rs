//! `--wait` of commands that change something: until the change is checked, or healthy.

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use super::{
    client::Client,
    error::{CliError, Exit},
    output::remark,
};
use crate::{
    api::types::{Admin, Backend, Health, Service},
    config::values::duration,
};

/// `check` of a service without health checks.
const NO_CHECK: &str = "none";
/// Time between two looks.
const POLL: Duration = Duration::from_millis(200);
/// Backends that a message names; more are counted.
const NAMED: usize = 5;

/// What `--wait` waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum WaitFor {
    /// Every service is programmed, and every enabled backend has been checked once
    Checked,
    /// Each enabled backend of the changed services that has a weight is up
    Healthy,
}

/// Flags of commands that can wait.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct Wait {
    /// Return when every service is programmed and every enabled backend has been checked once (checked), or when each enabled
    /// backend of what was changed is up (healthy) [default of --wait: checked]
    #[arg(
        long,
        value_enum,
        value_name = "FOR",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "checked",
        hide_possible_values = true
    )]
    wait: Option<WaitFor>,
    /// Give up waiting after this time, with exit code 6; the change stays
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "wait")]
    timeout: Option<Duration>,
}

/// What was changed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Changed<'a> {
    /// Services.
    Services(&'a [String]),
    /// A backend of a service.
    Backend(&'a str, &'a str),
}

impl Wait {
    /// Waits, if that was asked for.
    pub(super) async fn until(self, client: &Client, changed: Changed<'_>) -> Result<(), CliError> {
        let Some(goal) = self.wait else { return Ok(()) };
        let began = Instant::now();
        let mut said = Vec::new();
        loop {
            let services: Vec<Service> = client.get("/v1/services").await?;
            let missing = match goal {
                WaitFor::Checked => unchecked(&services),
                WaitFor::Healthy => unhealthy(&services, changed),
            };
            if missing.is_empty() {
                return Ok(());
            }
            if self.timeout.is_some_and(|timeout| began.elapsed() >= timeout) {
                let what = format!("gave up waiting: {}", listed(&missing));
                return Err(CliError::new(Exit::TimedOut, what)
                    .hint("the change is in force; see `lb status`, or undo it with `lb rollback`"));
            }
            if missing != said {
                remark(&format!("waiting for {}", listed(&missing)));
                said = missing;
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// The first few of a list.
fn listed(all: &[String]) -> String {
    let first = all.iter().take(NAMED).map(String::as_str);
    let first: Vec<&str> = first.collect();
    match all.len().saturating_sub(NAMED) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// Services that are not programmed, and backends that have not been checked.
fn unchecked(services: &[Service]) -> Vec<String> {
    let mut missing = Vec::new();
    for service in services {
        missing.extend(unprogrammed(service));
        let waits = |backend: &&Backend| {
            backend.last_check.is_none() && backend.admin != Admin::Disabled && !backend.removed
        };
        if service.check != NO_CHECK {
            let backends = service.backends.iter().filter(waits);
            missing
                .extend(backends.map(|backend| format!("{}/{} (no check yet)", service.name, backend.name)));
        }
    }
    missing
}

/// What of a change is not healthy: a service that is not programmed, and each enabled backend with a weight that is not up.
fn unhealthy(services: &[Service], changed: Changed<'_>) -> Vec<String> {
    let mut missing = Vec::new();
    for service in services {
        let only = match changed {
            Changed::Services(names) if names.contains(&service.name) => None,
            Changed::Backend(name, backend) if name == service.name => Some(backend),
            Changed::Services(_) | Changed::Backend(..) => continue,
        };
        missing.extend(unprogrammed(service));
        let counts = |backend: &&Backend| {
            let is_meant = only.is_none_or(|only| only == backend.name);
            is_meant && backend.admin == Admin::Enabled && backend.weight > 0 && !backend.removed
        };
        for backend in service.backends.iter().filter(counts) {
            let why = match backend.health {
                Health::Up => continue,
                Health::Unchecked if service.check == NO_CHECK && backend.agent.is_none() => continue,
                Health::Unchecked => "no verdict yet".to_owned(),
                Health::Down => match &backend.last_check {
                    Some(check) if !check.ok => format!("down: {}", check.detail),
                    Some(_) | None => "down".to_owned(),
                },
            };
            missing.push(format!("{}/{} ({why})", service.name, backend.name));
        }
    }
    missing
}

fn unprogrammed(service: &Service) -> Option<String> {
    let why = service.error.as_deref().unwrap_or("not programmed yet");
    (!service.programmed).then(|| format!("{} ({why})", service.name))
}

#[cfg(test)]
mod tests;

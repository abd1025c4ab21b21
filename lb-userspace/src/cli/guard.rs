//! Flags about the guard of a service.

use clap::Args;

use crate::api::requests::GuardSpec;

/// Stands for an empty list.
const NONE: &str = "none";

/// What `lb service add` and `lb service set` know of guards.
#[derive(Args, Debug)]
pub(super) struct GuardOptions {
    /// Prefixes of clients that may send, and none but them; `none`: all may
    #[arg(long, value_name = "PREFIX", value_delimiter = ',')]
    allow: Option<Vec<String>>,
    /// Prefixes of clients that may not send; `none`: all may
    #[arg(long, value_name = "PREFIX", value_delimiter = ',')]
    deny: Option<Vec<String>>,
}

impl GuardOptions {
    /// What was named, if anything.
    pub(super) fn spec(self) -> Option<GuardSpec> {
        let Self { allow, deny } = self;
        let spec = GuardSpec {
            allow: allow.map(list),
            deny: deny.map(list),
        };
        (spec != GuardSpec::default()).then_some(spec)
    }
}

fn list(prefixes: Vec<String>) -> Vec<String> {
    if prefixes == [NONE] { Vec::new() } else { prefixes }
}

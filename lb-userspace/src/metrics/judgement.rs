//! What bears on verdicts beside the results of checks, as families of their own.

use std::collections::BTreeMap;

use super::text::{Kind, Text};
use crate::health::{CheckId, CheckStatus};

/// The families of all checks.
pub(super) fn render(text: &mut Text, checks: &BTreeMap<CheckId, CheckStatus>) {
    let mut family = text.family(
        "lb_backend_damped",
        Kind::Gauge,
        "1: held down for having fallen too often",
    );
    for (id, status) in checks {
        family.sample(&labels(id), u8::from(status.damped));
    }
}

fn labels(CheckId(service, backend): &CheckId) -> [(&str, &str); 2] {
    [("service", service.as_str()), ("backend", backend.as_str())]
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::{health::Health, state::testing};

    #[test]
    fn a_damped_backend_is_seen() {
        let status = |damped| CheckStatus {
            health: Health::Down,
            since: SystemTime::UNIX_EPOCH,
            last_check: None,
            damped,
        };
        let checks = BTreeMap::from([
            (testing::id("web", "a"), status(true)),
            (testing::id("web", "b"), status(false)),
        ]);
        let mut text = Text::default();
        render(&mut text, &checks);
        let text = text.into_string();
        for line in [
            "lb_backend_damped{service=\"web\",backend=\"a\"} 1",
            "lb_backend_damped{service=\"web\",backend=\"b\"} 0",
        ] {
            assert!(text.lines().any(|seen| seen == line), "{text}");
        }
    }
}

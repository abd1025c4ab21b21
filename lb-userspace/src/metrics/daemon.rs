//! Families of the daemon itself: its version, events, configuration file and missing parts.

use super::{
    scrape::Scrape,
    text::{Kind, Text},
};
use crate::{parts::Part, version};

/// The families of the daemon.
pub(super) fn render(text: &mut Text, scrape: &Scrape<'_>) {
    text.family(
        "lb_build_info",
        Kind::Gauge,
        "Always 1; version and commit of the daemon, and the kernel's tag of the program that runs",
    )
    .sample(
        &[
            ("version", version::VERSION),
            ("commit", version::COMMIT),
            ("program", scrape.program),
        ],
        1,
    );
    if let Some(differs) = scrape.differs_from_file {
        text.family(
            "lb_config_differs_from_file",
            Kind::Gauge,
            "1: the configuration file is not in force, and `lb status` lists the differences; services made by command are none where the file lists no services",
        )
        .sample(&[], u8::from(differs));
    }
    let mut family = text.family(
        "lb_events_total",
        Kind::Counter,
        "Events since the daemon started, by kind",
    );
    for (kind, count) in scrape.events.counts() {
        family.sample(&[("kind", kind.word())], count);
    }
    let missing = scrape.parts.missing();
    let mut family = text.family(
        "lb_part_missing",
        Kind::Gauge,
        "1: this part of the daemon does not work; it forwards without",
    );
    for part in Part::ALL {
        family.sample(&[("part", part.name())], u8::from(missing.contains_key(&part)));
    }
}

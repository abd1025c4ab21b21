//! All metrics as one text: the registry's, then the families that mirror maps, verdicts and the state of the daemon.

use prometheus::TextEncoder;

use super::{
    agent, backends, daemon, hosts, interfaces, judgement, maps,
    scrape::Scrape,
    services,
    text::{Kind, Text},
};

/// The exposition text.
///
/// # Errors
/// When the registry cannot be encoded.
pub fn render(scrape: &Scrape<'_>) -> Result<String, prometheus::Error> {
    let (view, seen) = (scrape.view, scrape.seen);
    let health = scrape.health();
    let mut text = Text::default();
    text.family(
        "lb_ready",
        Kind::Gauge,
        "Whether the desired state is programmed on all interfaces",
    )
    .sample(&[], u8::from(scrape.ready));
    daemon::render(&mut text, scrape);
    interfaces::render(&mut text, seen);
    services::render(&mut text, view, &health, seen);
    backends::render(&mut text, view, &health, seen);
    maps::render(&mut text, seen, scrape.instant);
    judgement::render(&mut text, scrape.checks, seen, scrape.now);
    agent::render(&mut text, scrape.agents);
    hosts::render(&mut text, scrape.hosts);
    Ok(TextEncoder::new().encode_to_string(&scrape.registry.gather())? + &text.into_string())
}

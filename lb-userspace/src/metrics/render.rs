//! All metrics as one text: the registry's, then the families that mirror maps and verdicts.

use prometheus::{Registry, TextEncoder};

use super::{
    backends, interfaces, maps, services,
    text::{Kind, Text},
};
use crate::{
    control::{ControlView, Observation},
    state::effective::HealthView,
};

/// The exposition text.
///
/// # Errors
/// When the registry cannot be encoded.
pub fn render(
    registry: &Registry,
    ready: bool,
    view: &ControlView,
    health: &HealthView,
    seen: &Observation,
) -> Result<String, prometheus::Error> {
    let mut text = Text::default();
    text.family(
        "lb_ready",
        Kind::Gauge,
        "Whether the desired state is programmed on all interfaces",
    )
    .sample(&[], u8::from(ready));
    interfaces::render(&mut text, seen);
    services::render(&mut text, view, health, seen);
    backends::render(&mut text, view, health, seen);
    maps::render(&mut text, seen);
    Ok(TextEncoder::new().encode_to_string(&registry.gather())? + &text.into_string())
}

//! Names and numbers in the state directory that errors mention.

/// The state before the last change, for people to look at.
pub(super) const PREVIOUS_FILE: &str = "state.previous.toml";
/// Version of the header and the content.
pub(super) const FORMAT: u32 = 1;

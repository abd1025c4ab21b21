//! Which build this is.

/// Version of the packages.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from, as `cargo xtask dist` gives it; `unknown` for other builds, which a commit would otherwise
/// compile again.
pub const COMMIT: &str = match option_env!("LB_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

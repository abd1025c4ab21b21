//! Flags of the compiler that keep this machine's paths out of what is built: builds elsewhere then give the same bytes.

use std::{env, fs, path::PathBuf};

use crate::workspace::Workspace;

/// The variable that holds flags, with [`SEPARATOR`] between them.
pub(crate) const VARIABLE: &str = "CARGO_ENCODED_RUSTFLAGS";
/// Between flags: unlike a space, it is in no path.
const SEPARATOR: &str = "\x1f";

/// Paths of this machine, with the names that take their place. Where one lies in another, the inner one comes later: the last that fits
/// counts.
pub(crate) fn hidden_paths(workspace: &Workspace) -> Vec<(PathBuf, &'static str)> {
    let home = env::var_os("HOME").map(PathBuf::from);
    let place = |variable: &str, usual: &str| {
        let named = env::var_os(variable).map(PathBuf::from);
        named.or_else(|| Some(home.as_ref()?.join(usual)))
    };
    let mut paths = Vec::new();
    paths.extend(home.clone().map(|path| (path, "/home")));
    if let Some(cargo) = place("CARGO_HOME", ".cargo") {
        // Named after the registry's host, which may be a mirror.
        let sources = fs::read_dir(cargo.join("registry/src"));
        let sources = sources.into_iter().flatten().flatten();
        let sources = sources.map(|entry| (entry.path(), "/cargo/registry"));
        paths.push((cargo, "/cargo"));
        paths.extend(sources);
    }
    paths.extend(place("RUSTUP_HOME", ".rustup").map(|path| (path, "/rustup")));
    paths.push((workspace.root.clone(), "/lb"));
    if !workspace.target.starts_with(&workspace.root) {
        paths.push((workspace.target.clone(), "/lb/target"));
    }
    paths
}

/// `flags`, and those that hide paths, as the value of [`VARIABLE`].
pub(crate) fn with_hidden_paths(workspace: &Workspace, flags: &[&str]) -> String {
    let mut all: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
    let hidden = hidden_paths(workspace).into_iter();
    all.extend(hidden.map(|(path, name)| format!("--remap-path-prefix={}={name}", path.display())));
    all.join(SEPARATOR)
}

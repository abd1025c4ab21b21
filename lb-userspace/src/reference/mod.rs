//! Pages of `docs/` that are generated from the code. Each test compares a page with the committed one; `cargo xtask docs`
//! writes them.

mod commands;
mod configuration;
mod example;
mod metrics;

use std::{env, fs, path::Path};

/// Set by `cargo xtask docs`: write the pages instead of comparing them.
const WRITE: &str = "LB_WRITE_DOCS";

/// Compares a page with the committed file of this name in `docs/`, or writes it.
fn check(name: &str, page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    if env::var_os(WRITE).is_some() {
        fs::write(&path, page).unwrap();
        return;
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    let lines = committed.lines().zip(page.lines());
    let differs = lines.enumerate().find(|(_, (committed, page))| committed != page);
    assert!(
        committed == page,
        "docs/{name} differs from the code, first at {differs:?}: `cargo xtask docs` rewrites it"
    );
}

/// Text as a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

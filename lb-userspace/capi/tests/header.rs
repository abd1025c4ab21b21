//! `lb_health.h` is the C interface of health checks, written by cbindgen from its Rust. `cargo xtask docs` writes it; the test
//! compares.

use std::{env, fs, path::Path};

use anyhow::{Context, Result};
use cbindgen::{Builder, Config, DocumentationStyle, EnumConfig, Language, RenameRule, Style};

/// Set by `cargo xtask docs`: write the header instead of comparing it.
const WRITE: &str = "LB_WRITE_DOCS";

/// The header, below the crate.
const HEADER: &str = "include/lb_health.h";

/// Where the interface is below the crate, in the order of the header.
const SOURCES: [&str; 3] = ["src/code.rs", "src/status.rs", "src/lib.rs"];

/// Types in Rust and in C.
const TYPES: [(&str, &str); 4] = [
    ("LbCode", "lb_code"),
    ("LbHealth", "lb_health"),
    ("LbMonitor", "lb_monitor"),
    ("LbStatus", "lb_status"),
];

const HEAD: &str = "\
/* lb_health.h: health checks over one shared runtime, for C and what calls C.
 *
 * A monitor is a set of targets with the same settings, checked repeatedly from lb_monitor_start until lb_monitor_stop or
 * lb_monitor_free. Reading a health state does no I/O. Every call may be made from any thread at any time, and none ends
 * the program: failures give a code. Each check in flight has a descriptor, and HTTP checks keep one for each target, so
 * raise RLIMIT_NOFILE for many targets.
 *
 * Written by `cargo xtask docs` from lb-userspace/capi/src; link with -llb_health.
 */";

/// The header as it should be.
fn document(root: &Path) -> Result<String> {
    let mut config = Config {
        language: Language::C,
        header: Some(HEAD.to_owned()),
        include_guard: Some("LB_HEALTH_H".to_owned()),
        cpp_compat: true,
        usize_is_size_t: true,
        style: Style::Type,
        documentation_style: DocumentationStyle::C99,
        no_includes: true,
        sys_includes: ["stddef.h", "stdint.h"].map(str::to_owned).to_vec(),
        line_length: 110,
        enumeration: EnumConfig {
            rename_variants: RenameRule::QualifiedScreamingSnakeCase,
            ..EnumConfig::default()
        },
        ..Config::default()
    };
    for (rust, c) in TYPES {
        config.export.rename.insert(rust.to_owned(), c.to_owned());
    }
    let mut builder = Builder::new().with_config(config);
    for source in SOURCES {
        builder = builder.with_src(root.join(source));
    }
    let mut text = Vec::new();
    builder
        .generate()
        .context("cbindgen cannot make lb_health.h")?
        .write(&mut text);
    // "# Safety" is a section of Rust's documentation; here its sentences stand for themselves.
    Ok(String::from_utf8(text)?.replace("// # Safety\n", ""))
}

#[test]
fn header_matches_the_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let header = document(root).unwrap();
    if env::var_os(WRITE).is_some() {
        fs::write(root.join(HEADER), header).unwrap();
        return;
    }
    let committed = fs::read_to_string(root.join(HEADER)).unwrap();
    assert!(
        committed == header,
        "{HEADER} differs from the code: `cargo xtask docs` rewrites it"
    );
}

#[test]
fn every_call_is_in_the_header() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let header = document(root).unwrap();
    let code = fs::read_to_string(root.join(SOURCES[2])).unwrap();
    let calls = code.lines().filter_map(|line| {
        let (_, call) = line.split_once("extern \"C\" fn ")?;
        call.split('(').next()
    });
    let calls: Vec<&str> = calls.collect();
    assert!(calls.len() > 10, "{calls:?}");
    for call in calls {
        assert!(
            header.contains(&format!("{call}(")),
            "{call} is missing in {header}"
        );
    }
}

//! `lb_health.h`: the C interface of health checks, written by cbindgen from its Rust.

use std::path::Path;

use anyhow::{Context, Result};
use cbindgen::{Builder, Config, DocumentationStyle, EnumConfig, Language, RenameRule, Style};

use super::{Finding, Source};

/// The header.
pub(super) const PATH: &str = "lb-userspace/capi/include/lb_health.h";

/// Where the interface is, in the order of the header.
const SOURCES: [&str; 2] = ["lb-userspace/capi/src/code.rs", "lb-userspace/capi/src/lib.rs"];

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
 * A monitor is a set of targets that are checked alike, again and again, from lb_monitor_start until lb_monitor_stop or
 * lb_monitor_free. Reading a verdict does no I/O. Every call may be made from any thread at any time, and none ends the
 * program: what cannot be done gives a code. Checks in flight have a descriptor each, and HTTP checks keep one for
 * each target, so raise RLIMIT_NOFILE for many targets.
 *
 * Written by `cargo xtask docs` from lb-userspace/capi/src; link with -llb_health.
 */";

/// Compares the header with the code.
pub(super) fn check(root: &Path, sources: &[Source]) -> Result<Option<Finding>> {
    let found = sources.iter().find(|source| source.path == PATH);
    let right = document(root)?;
    Ok(finding(found.map(|source| source.text.as_str()), &right))
}

fn finding(found: Option<&str>, right: &str) -> Option<Finding> {
    (found != Some(right)).then(|| Finding {
        path: PATH.to_owned(),
        line: 0,
        message: "is not what lb-userspace/capi/src says: `cargo xtask docs` writes it anew".to_owned(),
    })
}

/// The header as it should be.
///
/// # Errors
/// When the Rust cannot be read or has what C cannot.
pub(super) fn document(root: &Path) -> Result<String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_is_behind_the_code_is_found() {
        assert_eq!(finding(Some("a"), "a"), None);
        assert!(finding(Some("a"), "b").is_some());
        assert!(finding(None, "b").is_some());
    }

    #[test]
    fn every_call_is_in_the_header() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let header = document(root).unwrap();
        let code = std::fs::read_to_string(root.join(SOURCES[1])).unwrap();
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
}

//! The XDP program's maps carry the names that the daemon looks for.

use std::collections::BTreeSet;

use lb_common::map_names;

use super::finding::{Finding, Source};

/// The module with all maps, and the folder of its parts.
const PATH: &str = "lb-ebpf/src/maps.rs";
const PARTS: &str = "lb-ebpf/src/maps/";

/// Prefix of maps that are the program's own memory for large locals: neither pinned nor used from outside.
const SCRATCH: &str = "SCRATCH_";

/// Compares the statics of the maps with `lb_common::map_names`.
pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let Some(source) = sources.iter().find(|source| source.path == PATH) else {
        return vec![Finding {
            path: PATH.to_owned(),
            line: 0,
            message: "is not there".to_owned(),
        }];
    };
    let declared: BTreeSet<&str> = sources
        .iter()
        .filter(|source| source.path == PATH || source.path.starts_with(PARTS))
        .flat_map(|source| statics(&source.text))
        .filter(|name| !name.starts_with(SCRATCH))
        .collect();
    let named = BTreeSet::from(map_names::PINNED);
    let only_here = declared
        .difference(&named)
        .map(|name| format!("{name} is not in lb_common::map_names"));
    let only_there = named
        .difference(&declared)
        .map(|name| format!("lb_common::map_names has {name}, which is no map"));
    only_here
        .chain(only_there)
        .map(|message| Finding::new(source, 0, message))
        .collect()
}

/// The names of the statics right after a map's attribute.
fn statics(text: &str) -> impl Iterator<Item = &str> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let mut names = Vec::new();
    for pair in lines.windows(2) {
        if matches!(pair[0], "#[btf_map]" | "#[map]") {
            names.extend(
                pair[1]
                    .strip_prefix("static ")
                    .and_then(|rest| rest.split(':').next()),
            );
        }
    }
    names.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_distinguished_from_other_statics() {
        let text = "#[btf_map]\nstatic FLOWS: HashMap<K, V, 1> = HashMap::new();\nstatic SLOT: u32 = 0;\n";
        assert_eq!(statics(text).collect::<Vec<_>>(), ["FLOWS"]);
    }

    #[test]
    fn a_renamed_map_is_found() {
        let text: String = map_names::PINNED
            .iter()
            .map(|name| format!("#[btf_map]\nstatic {name}: A = A::new();\n"))
            .collect();
        let sources = |text: String| {
            [Source {
                path: PATH.to_owned(),
                text,
            }]
        };
        assert_eq!(check(&sources(text.clone())), []);
        let with_scratch = format!("{text}#[btf_map]\nstatic SCRATCH_V4: A = A::new();\n");
        assert_eq!(check(&sources(with_scratch)), []);
        let renamed = text.replace("static RINGS:", "static RING:");
        assert_eq!(
            check(&sources(renamed)).len(),
            2,
            "a name too many, and one too few"
        );
    }
}

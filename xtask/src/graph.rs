//! `cargo xtask graph`: which file or folder of a crate uses which other one of it, and whether any two use each other.
//!
//! A cycle means that none of its parts can be read, tested or moved without all others. Crates that have none keep it so.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;

/// The parts of a crate that must have no import cycle.
#[derive(Clone, Copy)]
enum Parts {
    /// The files of a crate.
    Files,
    /// Its top folders, and the files beside them. Within a folder, files may use that of their parent.
    Folders,
}

/// Crates without cycles, by their directories.
const ACYCLIC: [(&str, Parts); 7] = [
    ("lb-common", Parts::Files),
    ("lb-ebpf", Parts::Files),
    ("lb-userspace", Parts::Folders),
    ("lb-userspace/capi", Parts::Files),
    ("lb-userspace/crates/plan", Parts::Folders),
    ("tests", Parts::Files),
    ("xtask", Parts::Files),
];

/// Options of `cargo xtask graph`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Directory of a crate, below the top of the checkout
    #[arg(default_value = "lb-ebpf")]
    krate: String,
    /// Join the files of each folder
    #[arg(long)]
    folders: bool,
}

/// Modules by their paths (`nat::track`), and the modules that each uses.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// Runs `cargo xtask graph`.
///
/// # Errors
/// When the crate cannot be read, or its files have an import cycle.
pub(crate) fn command(workspace: &Workspace, options: &Options) -> Result<()> {
    let parts = if options.folders {
        Parts::Folders
    } else {
        Parts::Files
    };
    let graph = of_crate(&workspace.root.join(&options.krate), parts)?;
    for (module, uses) in &graph {
        let uses: Vec<&str> = uses.iter().map(String::as_str).collect();
        println!("{module}: {}", uses.join(" "));
    }
    fail_on_cycles(&options.krate, &graph)
}

/// Checks the crates that must have no cycle.
///
/// # Errors
/// As [`command`].
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    ACYCLIC.iter().try_for_each(|(krate, parts)| {
        let graph = of_crate(&workspace.root.join(krate), *parts)?;
        fail_on_cycles(krate, &graph)
    })
}

fn fail_on_cycles(krate: &str, graph: &Graph) -> Result<()> {
    let rest = in_cycles(graph);
    if rest.is_empty() {
        return Ok(());
    }
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    bail!(
        "{krate}: these have an import cycle: {}; move what both sides need to a file below them",
        rest.join(", ")
    )
}

/// The graph of a crate's files below `src`, without its binaries and tests.
fn of_crate(krate: &Path, parts: Parts) -> Result<Graph> {
    let src = krate.join("src");
    let mut files = Vec::new();
    collect(&src, &mut files)?;
    let modules: BTreeMap<String, PathBuf> = files
        .into_iter()
        .map(|file| (module_of(&src, &file), file))
        .collect();
    let files = modules
        .iter()
        .map(|(module, file)| {
            let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            let uses = paths(module, &text)
                .iter()
                .filter_map(|path| longest(path, &modules))
                .filter(|used| used != module)
                .collect();
            Ok((module.clone(), uses))
        })
        .collect::<Result<Graph>>()?;
    Ok(match parts {
        Parts::Files => files,
        Parts::Folders => folders(&files),
    })
}

/// The graph of the first parts of the modules' paths, without the crate's root, which declares them.
fn folders(files: &Graph) -> Graph {
    let first = |module: &str| module.split("::").next().unwrap_or_default().to_owned();
    let mut graph = Graph::new();
    for (module, uses) in files.iter().filter(|(module, _)| !module.is_empty()) {
        let folder = first(module);
        let uses = uses.iter().map(|used| first(used));
        let others: Vec<String> = uses.filter(|used| *used != folder).collect();
        graph.entry(folder).or_default().extend(others);
    }
    graph
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if path.is_dir() {
            if name != "bin" && name != "tests" {
                collect(&path, files)?;
            }
        } else if name.ends_with(".rs") && name != "tests.rs" {
            files.push(path);
        }
    }
    Ok(())
}

/// The path of the module in a file; empty for the crate's own.
fn module_of(src: &Path, file: &Path) -> String {
    let below = file.strip_prefix(src).unwrap_or(file).with_extension("");
    let parts: Vec<&str> = below.iter().filter_map(|part| part.to_str()).collect();
    let is_root = |part: &&str| ["mod", "lib", "main"].contains(part);
    let parts = match parts.split_last() {
        Some((last, parents)) if is_root(last) => parents,
        Some(_) | None => &parts[..],
    };
    parts.join("::")
}

/// The module that a path leads to or into.
fn longest(path: &str, modules: &BTreeMap<String, PathBuf>) -> Option<String> {
    let mut path = path;
    loop {
        if modules.contains_key(path) && !path.is_empty() {
            return Some(path.to_owned());
        }
        path = path.rsplit_once("::")?.0;
    }
}

/// The paths within the crate that a module's text names, up to its unit tests.
fn paths(module: &str, text: &str) -> Vec<String> {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    let code: String = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n");
    let parent = module.rsplit_once("::").map_or("", |(parent, _)| parent);
    let mut found = Vec::new();
    for (start, base) in [("crate::", ""), ("super::", parent), ("self::", module)] {
        for (at, _) in code.match_indices(start) {
            let is_whole = code[..at]
                .chars()
                .next_back()
                .is_none_or(|before| !before.is_alphanumeric() && !"_:$".contains(before));
            if is_whole {
                expand(base, &code[at + start.len()..], &mut found);
            }
        }
    }
    found
}

/// Adds the paths that `text` begins with to `base`: one, or those in braces. Returns the bytes that were read.
fn expand(base: &str, text: &str, found: &mut Vec<String>) -> usize {
    let join = |part: &str| {
        if base.is_empty() {
            part.to_owned()
        } else {
            format!("{base}::{part}")
        }
    };
    if let Some(inner) = text.strip_prefix('{') {
        let mut at = 0;
        while let Some(next) = inner[at..].chars().next() {
            match next {
                '}' => return at + 2,
                c if c.is_alphabetic() || c == '_' => at += expand(base, &inner[at..], found),
                c => at += c.len_utf8(),
            }
        }
        return text.len();
    }
    let end = text
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    let name = &text[..end];
    let path = if name == "self" {
        base.to_owned()
    } else {
        join(name)
    };
    if let Some(rest) = text[end..].strip_prefix("::") {
        return end + 2 + expand(&path, rest, found);
    }
    found.push(path);
    end.max(1)
}

/// The modules that are left when those are taken away, again and again, that use none that is left, or that none uses.
fn in_cycles(graph: &Graph) -> BTreeSet<String> {
    let mut left: BTreeSet<String> = graph.keys().cloned().collect();
    loop {
        let stays = |module: &String| {
            let uses = graph[module].iter().any(|used| left.contains(used));
            let used = left.iter().any(|other| graph[other].contains(module));
            uses && used
        };
        let rest: BTreeSet<String> = left.iter().filter(|module| stays(module)).cloned().collect();
        if rest == left {
            return rest;
        }
        left = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(modules: &[&str]) -> BTreeSet<String> {
        modules.iter().map(|module| (*module).to_owned()).collect()
    }

    #[test]
    fn paths_are_read_from_nested_braces() {
        let text = "use crate::{\n    a::{self, b::C},\n    d,\n};\nuse super::e::F; // crate::no\nlet x = crate::g::h();";
        let mut found = paths("m::n", text);
        found.sort();
        assert_eq!(found, ["a", "a::b::C", "d", "g::h", "m::e::F"]);
    }

    #[test]
    fn only_cycles_are_reported() {
        let graph: Graph = [
            ("a", set(&["b"])),
            ("b", set(&["c"])),
            ("c", set(&["b", "d"])),
            ("d", set(&[])),
        ]
        .map(|(module, uses)| (module.to_owned(), uses))
        .into();
        assert_eq!(in_cycles(&graph), set(&["b", "c"]));
    }

    #[test]
    fn files_of_a_folder_count_as_one() {
        let files: Graph = [
            ("", set(&["a", "b"])),
            ("a", set(&["a::x"])),
            ("a::x", set(&["a", "b::y"])),
            ("b::y", set(&["b"])),
            ("b", set(&[])),
        ]
        .map(|(module, uses)| (module.to_owned(), uses))
        .into();
        let expected: Graph = [("a", set(&["b"])), ("b", set(&[]))]
            .map(|(module, uses)| (module.to_owned(), uses))
            .into();
        assert_eq!(folders(&files), expected);
    }
}

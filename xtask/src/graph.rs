//! `cargo xtask graph`: which file or folder of a crate uses which other one of it, and whether any two use each other.
//!
//! A cycle means that none of its parts can be read, tested or moved without all others, so no crate has one. Methods are not
//! followed: only names of modules, and of what is in them, count.

mod source;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    path::Path,
    slice,
};

use anyhow::{Context, Result, bail};

use self::source::{Import, Modules, Path as ModulePath, Source};
use crate::workspace::Workspace;

/// The parts of a crate that must have no import cycle.
#[derive(Clone, Copy)]
enum Parts {
    /// The files of a crate.
    Files,
    /// Its top folders, and the files beside them.
    Folders,
}

/// The crates whose folders have an order, too: ARCHITECTURE.md draws it.
const IN_LAYERS: [&str; 1] = ["lb-userspace"];

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

/// Modules by their paths (`nat::track`; the roots are [`ROOT`] and [`MAIN`]), and the modules that each uses.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// The name of a library's root in its crate's graph.
const ROOT: &str = "crate";
/// The name of the main binary's root.
const MAIN: &str = "main";

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

/// Checks that no crate, by its directory below the top of the checkout, has an import cycle.
///
/// # Errors
/// As [`command`].
pub(crate) fn check<'a>(workspace: &Workspace, mut crates: impl Iterator<Item = &'a str>) -> Result<()> {
    crates.try_for_each(|krate| {
        let dir = workspace.root.join(krate);
        fail_on_cycles(krate, &of_crate(&dir, Parts::Files)?)?;
        if IN_LAYERS.contains(&krate) {
            fail_on_cycles(krate, &of_crate(&dir, Parts::Folders)?)?;
        }
        Ok(())
    })
}

fn fail_on_cycles(krate: &str, graph: &Graph) -> Result<()> {
    let cycles: Vec<String> = cycles(graph)
        .iter()
        .map(|cycle| {
            let members: Vec<&str> = cycle.iter().map(String::as_str).collect();
            format!(
                "  {} (of {}: {})",
                shortest(graph, cycle).join(" -> "),
                members.len(),
                members.join(" ")
            )
        })
        .collect();
    if cycles.is_empty() {
        return Ok(());
    }
    bail!(
        "{krate} has import cycles; move what both sides need to a file below them, or pass it in:\n{}",
        cycles.join("\n")
    )
}

/// The graph of the files of a crate's library and main binary, without unit tests.
fn of_crate(krate: &Path, parts: Parts) -> Result<Graph> {
    let src = krate.join("src");
    let roots = [(ROOT, src.join("lib.rs")), (MAIN, src.join("main.rs"))];
    let mut files = Graph::new();
    for (name, root) in roots.iter().filter(|(_, root)| root.is_file()) {
        let mut modules = BTreeMap::new();
        read_module(&src, root, &[], &mut modules)?;
        // Both may declare the same file.
        for (module, used) in uses(name, &modules) {
            files.entry(module).or_default().extend(used);
        }
    }
    if files.is_empty() {
        bail!("{} has neither lib.rs nor main.rs", src.display());
    }
    Ok(match parts {
        Parts::Files => files,
        Parts::Folders => folders(&files),
    })
}

/// Reads a module's file, and those of the modules that it declares.
fn read_module(src: &Path, file: &Path, module: &[String], modules: &mut Modules) -> Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let found = source::read(module, &text);
    for child in found.values().flat_map(|source| &source.files) {
        let place = child.iter().fold(src.to_owned(), |place, name| place.join(name));
        let beside = place.with_extension("rs");
        let within = place.join("mod.rs");
        let file = if beside.is_file() { beside } else { within };
        read_module(src, &file, child, modules)?;
    }
    modules.extend(found);
    Ok(())
}

/// The modules that each module uses, with a name for the root.
fn uses(root: &str, modules: &Modules) -> Graph {
    let name = |module: &[String]| match module {
        [] => root.to_owned(),
        names => names.join("::"),
    };
    let uses = |(module, source): (&Vec<String>, &Source)| {
        let imports = source.imports.iter().map(|import| &import.path);
        let used = imports
            .chain(&source.paths)
            .filter_map(|path| end(modules, module, path))
            .filter(|used| used != module)
            .map(|used| name(&used))
            .collect();
        (name(module), used)
    };
    modules.iter().map(uses).collect()
}

/// The module of the crate that a path in the text of a module leads to or into; `None` for another crate's.
fn end(modules: &Modules, module: &[String], path: &ModulePath) -> Option<Vec<String>> {
    let (mut at, names) = if path.is_relative {
        start(modules, module, path)?
    } else {
        (path.from.clone(), path.names.clone())
    };
    for name in names {
        let child = [&at[..], slice::from_ref(&name)].concat();
        if modules.contains_key(&child) {
            at = child;
            continue;
        }
        // A module may pass on the name of another crate.
        let import = imports(modules, &at).find(|import| import.name == name);
        let leads_out =
            |import: &Import| import.path.is_relative && start(modules, &at, &import.path).is_none();
        return (!import.is_some_and(leads_out)).then_some(at);
    }
    Some(at)
}

/// Where a path begins whose first name a module declares or imports, and the names that lead on from there.
fn start(modules: &Modules, module: &[String], path: &ModulePath) -> Option<(Vec<String>, Vec<String>)> {
    let (first, rest) = path.names.split_first()?;
    let is_module = |at: &[String]| modules.contains_key(&[at, slice::from_ref(first)].concat());
    if is_module(&path.from) {
        return Some((path.from.clone(), path.names.clone()));
    }
    let within = |import: &&Import| !import.path.is_relative;
    let import = imports(modules, module)
        .filter(within)
        .find(|import| import.name == *first);
    if let Some(Import { path, .. }) = import {
        return Some((path.from.clone(), [&path.names[..], rest].concat()));
    }
    let mut all = imports(modules, module)
        .filter(within)
        .filter(|import| import.name == "*");
    all.find_map(|import| {
        let at = [&import.path.from[..], &import.path.names].concat();
        is_module(&at).then(|| (at, path.names.clone()))
    })
}

fn imports<'a>(modules: &'a Modules, module: &[String]) -> impl Iterator<Item = &'a Import> + use<'a> {
    modules
        .get(module)
        .map_or(&[][..], |source| &source.imports)
        .iter()
}

/// The graph of the first parts of the modules' paths, without the crate's root, which declares them.
fn folders(files: &Graph) -> Graph {
    let is_root = |module: &str| [ROOT, MAIN].contains(&module);
    let first = |module: &str| module.split("::").next().unwrap_or_default().to_owned();
    let mut graph = Graph::new();
    for (module, uses) in files.iter().filter(|(module, _)| !is_root(module)) {
        let folder = first(module);
        let uses = uses.iter().map(|used| first(used));
        let others: Vec<String> = uses.filter(|used| *used != folder && !is_root(used)).collect();
        graph.entry(folder).or_default().extend(others);
    }
    graph
}

/// The modules that each of them can reach, and be reached from: one set for each cycle, or for several that share modules.
fn cycles(graph: &Graph) -> Vec<BTreeSet<String>> {
    let reached: BTreeMap<&String, BTreeSet<String>> = graph
        .keys()
        .map(|module| (module, reached(graph, module)))
        .collect();
    let mut cycles: Vec<BTreeSet<String>> = Vec::new();
    for module in graph.keys() {
        if reached[module].contains(module) && !cycles.iter().any(|cycle| cycle.contains(module)) {
            let leads_back = |other: &&String| reached.get(other).is_some_and(|them| them.contains(module));
            cycles.push(reached[module].iter().filter(leads_back).cloned().collect());
        }
    }
    cycles
}

/// All modules that a module uses, directly or through others.
fn reached(graph: &Graph, module: &str) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut left = vec![module];
    while let Some(module) = left.pop() {
        for used in graph.get(module).into_iter().flatten() {
            if reached.insert(used.clone()) {
                left.push(used);
            }
        }
    }
    reached
}

/// The modules of a shortest cycle among these, the first of which comes last again.
fn shortest<'a>(graph: &'a Graph, members: &'a BTreeSet<String>) -> Vec<&'a str> {
    let from = |first: &'a String| {
        let mut ways = VecDeque::from([vec![first.as_str()]]);
        let mut seen = BTreeSet::new();
        while let Some(way) = ways.pop_front() {
            let uses = way.last().and_then(|last| graph.get(*last)).into_iter().flatten();
            for used in uses.filter(|used| members.contains(*used)) {
                let longer = [&way[..], &[used.as_str()]].concat();
                if used == first {
                    return Some(longer);
                }
                if seen.insert(used) {
                    ways.push_back(longer);
                }
            }
        }
        None
    };
    let cycles = members.iter().filter_map(from);
    cycles.min_by_key(Vec::len).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(modules: &[&str]) -> BTreeSet<String> {
        modules.iter().map(|module| (*module).to_owned()).collect()
    }

    /// The graph of a crate of these files, by the names of their modules.
    fn graph(files: &[(&str, &str)]) -> Graph {
        let modules = files.iter().flat_map(|(module, text)| {
            let module: Vec<String> = module
                .split("::")
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect();
            source::read(&module, text)
        });
        uses(ROOT, &modules.collect())
    }

    #[test]
    fn every_way_to_name_a_module_counts() {
        for text in [
            "use crate::b::X;",
            "use super::b;",
            "fn f() { crate::b::x(); }",
            "fn f() { super::b::x(); }",
            "use super::*; fn f() { b::x(); }",
            "use crate::b as c; fn f() { c::x(); }",
        ] {
            let graph = graph(&[("", ""), ("a", text), ("b", "")]);
            assert!(graph["a"].contains("b"), "{text}: {graph:?}");
        }
        for text in [
            "use x::Y;",
            "fn f() { x::y(); }",
            "pub use self::x::Y;",
            "use x as z; fn f() { z::y(); }",
        ] {
            let graph = graph(&[("", ""), ("a", text), ("a::x", "")]);
            assert_eq!(graph["a"], set(&["a::x"]), "{text}");
        }
    }

    #[test]
    fn the_root_counts_but_for_names_of_other_crates() {
        let root = "use other::state; pub use other; pub struct Here; pub use a::X;";
        for (text, expected) in [
            ("use crate::state::Y;", &[][..]),
            ("use super::other::Z;", &[]),
            ("fn f() { crate::state::g(); }", &[]),
            ("use crate::Here;", &[ROOT]),
            ("use super::X;", &[ROOT]),
        ] {
            let graph = graph(&[("", root), ("a", ""), ("b", text)]);
            assert_eq!(graph["b"], set(expected), "{text}");
        }
    }

    #[test]
    fn only_cycles_are_reported() {
        let graph: Graph = [
            ("a", set(&["b"])),
            ("b", set(&["c"])),
            ("c", set(&["b", "d"])),
            ("d", set(&["e"])),
            ("e", set(&["f"])),
            ("f", set(&["d"])),
            ("g", set(&[])),
        ]
        .map(|(module, uses)| (module.to_owned(), uses))
        .into();
        let found = cycles(&graph);
        assert_eq!(found, [set(&["b", "c"]), set(&["d", "e", "f"])]);
        assert_eq!(shortest(&graph, &found[0]), ["b", "c", "b"]);
        assert_eq!(shortest(&graph, &found[1]), ["d", "e", "f", "d"]);
    }

    #[test]
    fn files_of_a_folder_count_as_one() {
        let files: Graph = [
            (ROOT, set(&["a", "b"])),
            ("a", set(&["a::x", ROOT])),
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

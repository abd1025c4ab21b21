//! Programs for releases, optimised as a whole, without paths of this machine: `lb`, one static program for any distribution, and the
//! library of health checks.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};

use super::{arch::Arch, cross::Machine};
use crate::{
    build::{self, Profile},
    rust_flags,
    workspace::{Workspace, cache_dir, output_of, run},
};

/// Builds `lb` with the C library inside, which it needs for nothing that would have to be loaded: `lb` itself looks up users, groups and
/// host names.
///
/// # Errors
/// When it does not build, or has a path of this machine inside.
pub(super) fn lb(workspace: &Workspace, arch: Arch, machine: &Machine) -> Result<PathBuf> {
    let mut cargo = workspace.cargo();
    cargo
        .args(["build", "--package", "lb-userspace", "--bin", "lb"])
        .env("LB_COMMIT", build::commit(workspace));
    let mut linked = vec!["-Ctarget-feature=+crt-static"];
    if let (Machine::Native, Arch::X86_64) = (machine, arch)
        && unpacks_relocations()
    {
        linked.push("-Clink-arg=-Wl,-z,pack-relative-relocs");
    }
    build(workspace, arch, machine, cargo, "lb", &linked)
}

/// Builds `liblb_health.so`.
///
/// # Errors
/// When it does not build, or has a path of this machine inside.
pub(super) fn health_library(workspace: &Workspace, arch: Arch, machine: &Machine) -> Result<PathBuf> {
    let mut cargo = workspace.cargo();
    cargo
        .args(["rustc", "--package", "lb-health", "--lib"])
        .args(["--crate-type", "cdylib"]);
    build(
        workspace,
        arch,
        machine,
        cargo,
        "liblb_health.so",
        &["-Ctarget-feature=-crt-static"],
    )
}

/// Whether the C library that goes into a static program can relocate it by a packed list, which is half a megabyte smaller.
fn unpacks_relocations() -> bool {
    const SINCE: (u32, u32) = (2, 36);
    output_of(Command::new("getconf").arg("GNU_LIBC_VERSION"))
        .and_then(|version| glibc(&version))
        .is_some_and(|version| version >= SINCE)
}

/// The version in a text such as `glibc 2.36`.
fn glibc(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Runs cargo, and gives the path of its product.
fn build(
    workspace: &Workspace,
    arch: Arch,
    machine: &Machine,
    mut cargo: Command,
    product: &str,
    linked: &[&str],
) -> Result<PathBuf> {
    let own = machine.flags();
    let mut flags = linked.to_vec();
    flags.extend(own.iter().map(String::as_str));
    cargo.args(["--locked", "--profile", Profile::Shipped.dir()]).env(
        rust_flags::VARIABLE,
        rust_flags::with_hidden_paths(workspace, &flags),
    );
    machine.build_for(&mut cargo, arch, workspace);
    run(&mut cargo).with_context(|| format!("building {product} for {}", arch.word()))?;
    let file = machine
        .products(workspace, arch, Profile::Shipped.dir())
        .join(product);
    let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let hidden = rust_flags::hidden_paths(workspace);
    for path in hidden.into_iter().map(|(path, _)| path).chain([cache_dir()?]) {
        let path = path.to_string_lossy();
        // The home of root is a word that occurs for other reasons.
        if path.matches('/').count() > 1 && contains(&bytes, path.as_bytes()) {
            bail!(
                "{} has {path} inside: builds elsewhere would differ",
                file.display()
            );
        }
    }
    Ok(file)
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_of_the_c_library_is_compared_by_its_numbers() {
        assert_eq!(glibc("glibc 2.36\n"), Some((2, 36)));
        assert!(glibc("glibc 2.4") < glibc("glibc 2.36"));
        assert_eq!(glibc("musl"), None);
    }
}

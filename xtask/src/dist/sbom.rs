//! The bill of materials, in the format of CycloneDX: each crate that the program is built from, with licence and checksum, from what cargo
//! knows. Its serial number is derived from its content.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    epoch::Epoch,
    release::{Release, sha256},
};
use crate::workspace::Workspace;

/// Crates of ours that a release is built from: the program, and the program inside of it.
const OURS: [&str; 2] = ["lb-userspace", "lb-ebpf"];

/// Writes it.
///
/// # Errors
/// When cargo does not name the crates.
pub(super) fn make(workspace: &Workspace, release: &Release, epoch: &Epoch) -> Result<PathBuf> {
    let mut cargo = workspace.cargo();
    cargo
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
        ])
        .arg(release.arch.target());
    let output = cargo.output().context("cannot start cargo")?;
    ensure!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let lock = fs::read_to_string(workspace.root.join("Cargo.lock")).context("cannot read Cargo.lock")?;
    let (components, dependencies) = contents(&metadata, &checksums(&lock))?;
    let mut bill = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": epoch.formatted("+%Y-%m-%dT%H:%M:%SZ")?,
            "component": {"type": "application", "bom-ref": "lb", "name": "lb", "version": release.version},
        },
        "components": components,
        "dependencies": dependencies,
    });
    let arch = release.arch.word();
    let file = release
        .out
        .join(format!("lb-{}-{arch}.cdx.json", release.version));
    fs::write(&file, bill.to_string())?;
    bill["serialNumber"] = serial(&sha256(&file)?).into();
    fs::write(&file, format!("{bill:#}\n"))?;
    Ok(file)
}

/// Checksums of crates by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let packages = lock.split("[[package]]").filter_map(|package| {
        let value = |key: &str| {
            let mut lines = package.lines();
            let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""))?;
            Some(value.trim_end_matches('"').to_owned())
        };
        Some(((value("name")?, value("version")?), value("checksum")?))
    });
    packages.collect()
}

/// Components and dependencies: all that crates of [`OURS`] depend on in use, not for building or testing.
fn contents(metadata: &Value, sums: &BTreeMap<(String, String), String>) -> Result<(Vec<Value>, Vec<Value>)> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages = list(&metadata["packages"]).into_iter();
    let packages: BTreeMap<String, Value> = packages.map(|package| (text(&package["id"]), package)).collect();
    let nodes = list(&metadata["resolve"]["nodes"]).into_iter().map(|node| {
        let used = list(&node["deps"]).into_iter().filter(|dependency| {
            let kinds = list(&dependency["dep_kinds"]);
            kinds.iter().any(|kind| kind["kind"].is_null())
        });
        (
            text(&node["id"]),
            used.map(|dependency| text(&dependency["pkg"]))
                .collect::<BTreeSet<String>>(),
        )
    });
    let nodes: BTreeMap<String, BTreeSet<String>> = nodes.collect();
    let is_ours = |package: &Value| OURS.iter().any(|name| package["name"] == *name);
    let ours = packages.iter().filter(|(_, package)| is_ours(package));
    let ours: Vec<&String> = ours.map(|(id, _)| id).collect();
    ensure!(ours.len() == OURS.len(), "cargo metadata does not name {OURS:?}");
    let mut found = BTreeSet::new();
    let mut next = ours.clone();
    while let Some(id) = next.pop() {
        if found.insert(id) {
            next.extend(nodes.get(id).into_iter().flatten());
        }
    }
    let name = |id: &String| {
        let package = &packages[id];
        format!(
            "pkg:cargo/{}@{}",
            text(&package["name"]),
            text(&package["version"])
        )
    };
    let components = found.iter().map(|id| {
        let package = &packages[*id];
        let mut component = json!({
            "type": "library",
            "bom-ref": name(id),
            "name": package["name"],
            "version": package["version"],
            "purl": name(id),
        });
        if let Some(licence) = package["license"].as_str() {
            component["licenses"] = json!([{"expression": licence.replace('/', " OR ")}]);
        }
        if let Some(sum) = sums.get(&(text(&package["name"]), text(&package["version"]))) {
            component["hashes"] = json!([{"alg": "SHA-256", "content": sum}]);
        }
        component
    });
    let own = json!({"ref": "lb", "dependsOn": ours.iter().map(|id| name(id)).collect::<Vec<_>>()});
    let of = |id: &&String| {
        let used: Vec<String> = nodes.get(*id).into_iter().flatten().map(&name).collect();
        json!({"ref": name(id), "dependsOn": used})
    };
    Ok((
        components.collect(),
        [own].into_iter().chain(found.iter().map(of)).collect(),
    ))
}

/// A serial number from the digits of a checksum: a UUID of version 8, which has a meaning of its own (RFC 9562, 5.8).
fn serial(digits: &str) -> String {
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    format!(
        "urn:uuid:{}-{}-8{}-8{}-{}",
        part(0, 8),
        part(8, 12),
        part(13, 16),
        part(17, 20),
        part(20, 32)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bill_lists_what_is_used_and_not_what_builds_or_tests() {
        let package =
            |name: &str| json!({"id": name, "name": name, "version": "1.0.0", "license": "MIT/Apache-2.0"});
        let needs = |name: &str, kind: Value| json!({"pkg": name, "dep_kinds": [{"kind": kind}]});
        let packages = ["lb-userspace", "lb-ebpf", "used", "deep", "builds", "tests"].map(package);
        let metadata = json!({
            "packages": packages,
            "resolve": {"nodes": [
                {"id": "lb-userspace", "deps": [
                    needs("used", Value::Null), needs("builds", "build".into()), needs("tests", "dev".into())
                ]},
                {"id": "used", "deps": [needs("deep", Value::Null)]},
            ]},
        });
        let lock = "[[package]]\nname = \"deep\"\nversion = \"1.0.0\"\nchecksum = \"12ab\"\n";
        let (components, dependencies) = contents(&metadata, &checksums(lock)).unwrap();
        let names: Vec<_> = components
            .iter()
            .map(|component| component["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["deep", "lb-ebpf", "lb-userspace", "used"]);
        assert_eq!(components[0]["hashes"][0]["content"], "12ab");
        assert_eq!(components[0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        let used = dependencies
            .iter()
            .find(|dependency| dependency["ref"] == "pkg:cargo/used@1.0.0");
        assert_eq!(used.unwrap()["dependsOn"], json!(["pkg:cargo/deep@1.0.0"]));
        assert_eq!(dependencies[0]["ref"], "lb");
    }

    #[test]
    fn serial_number_is_a_uuid_of_version_8() {
        let digits = "0123456789abcdef".repeat(4);
        assert_eq!(serial(&digits), "urn:uuid:01234567-89ab-8def-8123-456789abcdef");
    }
}

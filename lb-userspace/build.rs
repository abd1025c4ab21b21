//! Puts the BPF objects, where `cargo xtask build` has left them, to where the library embeds them from; else empty
//! files, so that building and testing the daemon needs no BPF toolchain.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

/// Below the target directory: where the finished objects lie, and under which names they are embedded.
const OBJECT_DIR: &str = "bpf";
const OBJECT_NAMES: [&str; 2] = ["lb-ebpf.o", "lb-ebpf-decap.o"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set; run by cargo")?);
    let object_dir = target_dir(&out_dir)
        .ok_or_else(|| format!("no cargo target directory above {}", out_dir.display()))?
        .join(OBJECT_DIR);
    // Cargo runs a build script whose watched path is missing again on every build; a directory that is there, empty
    // or not, is run again only when something in it changes.
    fs::create_dir_all(&object_dir)?;
    println!("cargo::rerun-if-changed={}", object_dir.display());
    println!("cargo::rerun-if-changed=build.rs");

    for name in OBJECT_NAMES {
        let object = match fs::read(object_dir.join(name)) {
            Ok(object) => object,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(format!("{}: {e}", object_dir.join(name).display()).into()),
        };
        fs::write(out_dir.join(name), object)?;
    }
    Ok(())
}

/// The target directory `out_dir` lies in: cargo marks it with a CACHEDIR.TAG.
fn target_dir(out_dir: &Path) -> Option<&Path> {
    out_dir.ancestors().find(|dir| dir.join("CACHEDIR.TAG").is_file())
}

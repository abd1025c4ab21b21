//! Puts the BPF objects, where `cargo xtask build` has left them, to where the library embeds them from; else nothing, so that
//! building and testing the daemon needs no BPF toolchain. The packet path's is taken apart here, and not at each start.

mod parts;

use std::{
    env,
    error::Error,
    fs, io,
    path::{Path, PathBuf},
};

use object::{
    build::elf::{Builder, Section, SectionData},
    elf::SHT_STRTAB,
};

/// Below the target directory: where the finished objects lie.
const OBJECT_DIR: &str = "bpf";
/// The object of the packet path.
const PACKET_PATH: &str = "lb-ebpf.o";
/// That of the packet path while `lb monitor` runs.
const MONITORED: &str = "lb-ebpf-monitor.o";
/// That of the tunnel end, which is embedded under this name.
const TUNNEL_END: &str = "lb-ebpf-decap.o";
/// Sections that no loader reads: DWARF, of which the linker has made BTF, and relocations of what needs none. Three quarters
/// of an object, which the daemon would carry and parse at each start.
const NOT_LOADED: [&str; 3] = [".debug_", ".rel.debug_", ".rel.BTF"];

fn main() -> Result<(), Box<dyn Error>> {
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set; run by cargo")?);
    let object_dir = target_dir(&out_dir)
        .ok_or_else(|| format!("no cargo target directory above {}", out_dir.display()))?
        .join(OBJECT_DIR);
    // Cargo runs a build script whose watched path is missing again on every build; a directory that is there, empty
    // or not, is run again only when something in it changes.
    fs::create_dir_all(&object_dir)?;
    println!("cargo::rerun-if-changed={}", object_dir.display());
    println!("cargo::rerun-if-changed=build");

    let tunnel_end = read(&object_dir, TUNNEL_END)?.unwrap_or_default();
    fs::write(out_dir.join(TUNNEL_END), tunnel_end)?;
    // The monitored program is loaded for a while: without source lines, which are half of it.
    for (name, file, constant, lines) in [
        (PACKET_PATH, "parts", "USUAL_BYTES", true),
        (MONITORED, "monitored", "MONITORED_BYTES", false),
    ] {
        let (code, bytes) = match read(&object_dir, name)? {
            Some(object) => parts::of(&object, constant, lines).map_err(|e| format!("{name}: {e}"))?,
            None => ("None".to_owned(), Vec::new()),
        };
        fs::write(out_dir.join(file).with_extension("rs"), code)?;
        fs::write(out_dir.join(file).with_extension("bin"), bytes)?;
    }
    Ok(())
}

/// An object without the sections that are not loaded, if it was built.
fn read(object_dir: &Path, name: &str) -> Result<Option<Vec<u8>>, Box<dyn Error>> {
    match fs::read(object_dir.join(name)) {
        Ok(object) => Ok(Some(stripped(&object).map_err(|e| format!("{name}: {e}"))?)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(format!("{}: {e}", object_dir.join(name).display()).into()),
    }
}

/// An object without the sections that are not loaded.
fn stripped(object: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut builder = Builder::read(object)?;
    for section in &mut builder.sections {
        let name = section.name.to_string();
        section.delete = NOT_LOADED.iter().any(|prefix| name.starts_with(prefix));
    }
    // A linker may keep names of sections among those of symbols; the writer wants them apart.
    let apart = |section: &Section<'_>| matches!(section.data, SectionData::SectionString);
    if !builder.sections.iter().any(apart) {
        let names = builder.sections.add();
        (names.name, names.sh_type) = (b".shstrtab"[..].into(), SHT_STRTAB);
        names.data = SectionData::SectionString;
    }
    builder.delete_orphans();
    let mut stripped = Vec::new();
    builder.write(&mut stripped)?;
    Ok(stripped)
}

/// The target directory `out_dir` lies in: cargo marks it with a CACHEDIR.TAG, and so it does the directory of a `--target` in it.
fn target_dir(out_dir: &Path) -> Option<&Path> {
    let marked = |dir: &&Path| dir.join("CACHEDIR.TAG").is_file();
    out_dir.ancestors().filter(marked).last()
}

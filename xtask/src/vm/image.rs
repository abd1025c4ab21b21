//! The root file system of a virtual machine, packed for its memory.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::kernel::Kernel;
use crate::{
    build::Profile,
    packages, test_program,
    workspace::{Workspace, output_of, run},
};

/// Programs that tests call in it.
const PROGRAMS: [&str; 4] = ["busybox", "ip", "tc", "ethtool"];
/// Modules of the kernel that devices of tests are made of, with those they need in turn; some kernels have the last ones built in.
const MODULES: [&str; 3] = ["net", "drivers/net", "drivers/virtio"];
const INIT: &str = include_str!("init.sh");
/// Objects of XDP programs that tests load themselves.
const OBJECTS: [&str; 3] = ["lb-ebpf.o", "lb-ebpf-decap.o", "lb-ebpf-monitor.o"];
/// Below the root: command lines of the test programs, one a line.
const COMMANDS: &str = "test-programs";

/// A test program of `lb-tests`.
pub(crate) struct TestProgram {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its arguments, such as the tests to run.
    pub(crate) arguments: &'static [&'static str],
}

/// Packs test programs, this `lb` where they look for one, and what they call.
pub(super) fn pack(
    workspace: &Workspace,
    kernel: Kernel,
    programs: &[TestProgram],
    lb: &Path,
) -> Result<PathBuf> {
    let dir = workspace.target.join("vm");
    let root = dir.join("root");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
    }
    for place in ["bin", "dev", "proc", "run", "sbin", "sys", "tmp"] {
        fs::create_dir_all(root.join(place))?;
    }
    for name in PROGRAMS {
        let files = packages::files(name)?;
        for (file, place) in &files {
            put(&root, file, place)?;
        }
        // All are looked for here.
        let link = root.join("bin").join(name);
        if let Some((_, place)) = files.first()
            && !link.exists()
        {
            symlink(place, link)?;
        }
    }
    // After the tools: where both bring a library, this machine's is at least as new.
    let mut commands = String::new();
    for TestProgram { name, arguments } in programs {
        let file = test_program::build(workspace, &["--test", name], name)?;
        put_program(&root, &file, &file)?;
        commands.push_str(&format!("{} {}\n", file.display(), arguments.join(" ")));
    }
    fs::write(root.join(COMMANDS), commands)?;
    put_program(&root, lb, &workspace.lb(Profile::Release.dir()))?;
    // By this tests know their target directory.
    let tag = workspace.target.join("CACHEDIR.TAG");
    put(&root, &tag, &tag)?;
    for name in OBJECTS {
        let object = workspace.bpf_object().with_file_name(name);
        put(&root, &object, &object)?;
    }
    put_modules(&root, kernel)?;
    let init = root.join("init");
    fs::write(&init, INIT)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    let image = dir.join("initramfs");
    let mut pack = Command::new("sh");
    pack.args(["-c", "find . | busybox cpio -o -H newc > \"$0\" 2>/dev/null"])
        .arg(&image)
        .current_dir(&root);
    packages::in_path(&mut pack)?;
    run(&mut pack)?;
    Ok(image)
}

/// Copies a program to `place` below `root`, and its libraries to their places there.
fn put_program(root: &Path, file: &Path, place: &Path) -> Result<()> {
    put(root, file, place)?;
    // Prints nothing for a program without libraries.
    let libraries = output_of(Command::new("ldd").arg(file)).unwrap_or_default();
    for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        let library = Path::new(library);
        put(root, library, library)?;
    }
    Ok(())
}

/// Copies a file to its place below `root`.
fn put(root: &Path, file: &Path, place: &Path) -> Result<()> {
    let place = root.join(place.strip_prefix("/").context("not an absolute path")?);
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::copy(file, &place).with_context(|| format!("cannot copy {}", file.display()))?;
    Ok(())
}

fn put_modules(root: &Path, kernel: Kernel) -> Result<()> {
    let version = kernel.version()?;
    let of_version = format!("lib/modules/{version}");
    for part in MODULES {
        let from = kernel.dir()?.join(&of_version).join("kernel").join(part);
        let to = root.join(&of_version).join("kernel").join(part);
        fs::create_dir_all(&to)?;
        run(Command::new("cp").arg("-r").arg(from.join(".")).arg(to))?;
    }
    // Unpacked here, which takes less time than there.
    let mut unpack = Command::new("find");
    unpack
        .arg(root.join(&of_version))
        .args(["-name", "*.xz", "-exec", "busybox", "unxz", "{}", "+"]);
    packages::in_path(&mut unpack)?;
    run(&mut unpack)?;
    let mut depmod = Command::new("busybox");
    depmod
        .args(["depmod", "-b"])
        .args([root.as_os_str(), OsStr::new(&version)]);
    packages::in_path(&mut depmod)?;
    run(&mut depmod)
}

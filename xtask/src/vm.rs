//! A virtual machine with Debian's kernel, Linux 6.1 on Debian 12: the oldest supported one. Its root file system is in
//! memory and has a test program with the programs that it calls, each file at its path here. The processor is emulated
//! in software, so that it runs inside of other virtual machines too; tests that depend on speed cannot run there.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    archive::Archive,
    build::Profile,
    packages, test_program,
    workspace::{Workspace, cache_dir, output_of, run},
};

/// The package that stands for the newest kernel of the release.
const KERNEL: &str = "linux-image-cloud-amd64";
/// Programs that tests call in it.
const PROGRAMS: [&str; 4] = ["busybox", "ip", "tc", "ethtool"];
/// Modules of the kernel that devices of tests are made of, with those they need in turn.
const MODULES: [&str; 2] = ["net", "drivers/net"];
const INIT: &str = include_str!("vm/init.sh");

/// The command that runs a test program of `lb-tests` in a virtual machine, with this `lb` where tests look for one. The
/// program's output shows whether it passed; the command fails only if there was no machine.
///
/// # Errors
/// When the kernel, or a program for the machine, is missing, or the test program does not build.
pub(crate) fn command(workspace: &Workspace, program: &str, lb: &Path) -> Result<Command> {
    ensure()?;
    let boot = kernel_dir()?.join("boot");
    let version = version(&boot)?;
    let test = test_program::build(workspace, &["--test", program], program)?;
    let image = image(workspace, &test, lb, &version)?;
    // The machine computes all the time, and no test in it depends on speed: whatever runs beside it goes first.
    let mut qemu = Command::new("nice");
    qemu.args(["-n", "5", "qemu-system-x86_64"])
        .args([
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-smp",
            "2",
            "-m",
            "2048",
        ])
        .args([
            "-display",
            "none",
            "-serial",
            "stdio",
            "-nic",
            "none",
            "-no-reboot",
        ])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=1"])
        .arg("-kernel")
        .arg(boot.join(format!("vmlinuz-{version}")))
        .arg("-initrd")
        .arg(image)
        .arg("-append")
        // Words after the dashes are arguments of the first process.
        .arg(format!("console=ttyS0 quiet panic=-1 -- {}", test.display()));
    packages::in_path(&mut qemu)?;
    Ok(qemu)
}

/// Sees to it that the machine and a kernel for it are there.
///
/// # Errors
/// When they cannot be fetched.
pub(crate) fn ensure() -> Result<()> {
    packages::ensure_vm()?;
    ensure_kernel()
}

/// Sees to it that a kernel is there.
///
/// # Errors
/// When it cannot be fetched.
fn ensure_kernel() -> Result<()> {
    let dir = kernel_dir()?;
    if version(&dir.join("boot")).is_ok() {
        return Ok(());
    }
    let archive = Archive::open()?;
    let package = archive
        .dependency(KERNEL)
        .with_context(|| format!("no package {KERNEL} here"))?;
    archive.unpack_alone(&package, &dir).context("fetching a kernel")
}

fn kernel_dir() -> Result<PathBuf> {
    Ok(cache_dir()?.join("kernel"))
}

/// The version of the kernel with files in `boot`.
fn version(boot: &Path) -> Result<String> {
    for entry in fs::read_dir(boot).with_context(|| format!("cannot read {}", boot.display()))? {
        if let Some(version) = entry?.file_name().to_string_lossy().strip_prefix("vmlinuz-") {
            return Ok(version.to_owned());
        }
    }
    bail!("no kernel in {}", boot.display())
}

/// Packs the root file system.
fn image(workspace: &Workspace, test: &Path, lb: &Path, version: &str) -> Result<PathBuf> {
    let dir = workspace.target.join("vm");
    let root = dir.join("root");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
    }
    for place in ["bin", "dev", "proc", "run", "sys", "tmp"] {
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
    put_program(&root, test, test)?;
    put_program(&root, lb, &workspace.lb(Profile::Release.dir()))?;
    // By this tests know their target directory.
    let tag = workspace.target.join("CACHEDIR.TAG");
    put(&root, &tag, &tag)?;
    put_modules(&root, version)?;
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

fn put_modules(root: &Path, version: &str) -> Result<()> {
    let of_version = format!("lib/modules/{version}");
    for part in MODULES {
        let from = kernel_dir()?.join(&of_version).join("kernel").join(part);
        let to = root.join(&of_version).join("kernel").join(part);
        fs::create_dir_all(&to)?;
        run(Command::new("cp").arg("-r").arg(from.join(".")).arg(to))?;
    }
    let mut depmod = Command::new("busybox");
    depmod
        .args(["depmod", "-b"])
        .args([root.as_os_str(), OsStr::new(version)]);
    packages::in_path(&mut depmod)?;
    run(&mut depmod)
}

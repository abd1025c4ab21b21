//! A bundle: programs of Debian packages, unpacked into the cache together with every library they load, including the
//! C library and its loader. A bundle does not depend on versions installed on this machine, and changes nothing of
//! this machine.
//!
//! Each program is started by a small script in the bundle's `start`, which calls the bundle's own loader with the bundle's
//! own library directories. A variable such as `LD_LIBRARY_PATH` would do the same, but programs that these programs start
//! would inherit it.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    archive::Archive,
    workspace::{cache_dir, output_of},
};

/// Raised when scripts or unpacking change, so that older bundles are rebuilt.
const FORMAT: u32 = 1;
/// Where packages put shared libraries.
const LIBRARY_PLACES: [&str; 4] = ["lib", "lib64", "usr/lib", "usr/lib64"];
/// Library directories lie at most this deep below those, such as `x86_64-linux-gnu/pulseaudio`.
const LIBRARY_DEPTH: usize = 2;
/// Directories of this machine that a program with a root of its own has, too.
const SHARED_DIRS: [&str; 3] = ["proc", "dev", "tmp"];
/// Where the scripts lie, a name that no package uses.
const SCRIPTS: &str = "start";

/// A program of a bundle.
pub(crate) struct Program {
    /// Its command name.
    pub(crate) name: &'static str,
    /// Its file, below the bundle's root. A directory `*` stands for the only one at its place, whose name is a version.
    pub(crate) file: &'static str,
    /// Variables it needs; `@` stands for the bundle's root.
    pub(crate) env: &'static [(&'static str, &'static str)],
    /// Arguments before all others; `@` as in `env`.
    pub(crate) args: &'static [&'static str],
    /// Whether it starts itself again, or finds its files beside its own, so that no loader may stand before it: it then runs in a root
    /// that is the bundle, with this machine's `/proc`, `/dev` and `/tmp`, and needs root. Without `env`.
    pub(crate) has_own_root: bool,
}

impl Program {
    /// A program that needs only its file.
    pub(crate) const fn new(name: &'static str, file: &'static str) -> Self {
        Self {
            name,
            file,
            env: &[],
            args: &[],
            has_own_root: false,
        }
    }

    /// Its file in a bundle.
    fn file_in(&self, root: &Path) -> Result<PathBuf> {
        let mut file = root.to_owned();
        for part in Path::new(self.file) {
            if part == "*" {
                let mut entries =
                    fs::read_dir(&file).with_context(|| format!("cannot read {}", file.display()))?;
                let first = entries
                    .next()
                    .with_context(|| format!("{} is empty", file.display()))?;
                file = first?.path();
            } else {
                file.push(part);
            }
        }
        ensure!(file.is_file(), "{} is not in its package", file.display());
        Ok(file)
    }
}

/// Packages and the programs they are unpacked for.
pub(crate) struct Bundle {
    /// Name of its directory in the cache.
    pub(crate) name: &'static str,
    /// The packages.
    pub(crate) packages: &'static [&'static str],
    /// The programs.
    pub(crate) programs: &'static [Program],
}

impl Bundle {
    /// The directory of the scripts that start the programs, for `PATH`.
    ///
    /// # Errors
    /// When the place of the cache is unknown.
    pub(crate) fn scripts(&self) -> Result<PathBuf> {
        Ok(self.root()?.join(SCRIPTS))
    }

    /// Whether the bundle is there as it is described here.
    ///
    /// # Errors
    /// When the place of the cache is unknown.
    pub(crate) fn is_complete(&self) -> Result<bool> {
        let root = self.root()?;
        Ok(fs::read_to_string(stamp(&root)).is_ok_and(|text| text == self.description(&root)))
    }

    /// Fetches and unpacks the bundle, and checks that each program finds all of its libraries in it.
    ///
    /// # Errors
    /// When a package cannot be had, or lacks a program.
    pub(crate) fn make(&self, archive: &Archive) -> Result<()> {
        let root = self.root()?;
        if root.exists() {
            fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
        }
        archive
            .unpack_with_dependencies(self.packages, &root)
            .with_context(|| format!("unpacking programs into {}", root.display()))?;
        let libraries = Libraries::of(&root)?;
        fs::create_dir_all(root.join(SCRIPTS))?;
        for program in self.programs {
            libraries.write_script(program)?;
        }
        // Last, since it marks the bundle as complete.
        fs::write(stamp(&root), self.description(&root))?;
        Ok(())
    }

    /// The file of a program and those of the libraries it loads, each with the place it has in an installed system.
    ///
    /// # Errors
    /// When there is no such program.
    pub(crate) fn files(&self, name: &str) -> Result<Vec<(PathBuf, PathBuf)>> {
        let root = self.root()?;
        let program = self
            .programs
            .iter()
            .find(|program| program.name == name)
            .with_context(|| format!("no program {name} in the bundle {}", self.name))?;
        let libraries = Libraries::of(&root)?;
        let mut files = vec![program.file_in(&root)?];
        if let Some(loaded) = libraries.loaded_by(program)? {
            files.push(libraries.loader.clone());
            files.extend(loaded);
        }
        files
            .into_iter()
            .map(|file| {
                let place = Path::new("/").join(file.strip_prefix(&root)?);
                Ok((file, place))
            })
            .collect()
    }

    /// The directory that it is unpacked to.
    ///
    /// # Errors
    /// When the place of the cache is unknown.
    pub(crate) fn root(&self) -> Result<PathBuf> {
        Ok(cache_dir()?.join("programs").join(self.name))
    }

    /// Content of the stamp. It names the root, as scripts do, so a moved cache is no complete bundle.
    fn description(&self, root: &Path) -> String {
        let programs: Vec<_> = self.programs.iter().map(|program| program.name).collect();
        format!(
            "{FORMAT} {}\n{}\n{}\n",
            root.display(),
            self.packages.join(" "),
            programs.join(" ")
        )
    }
}

/// The libraries of a bundle.
struct Libraries {
    root: PathBuf,
    loader: PathBuf,
    /// All directories with libraries, separated by colons.
    path: String,
}

impl Libraries {
    fn of(root: &Path) -> Result<Self> {
        let mut dirs = BTreeSet::new();
        for place in LIBRARY_PLACES {
            find_libraries(&root.join(place), LIBRARY_DEPTH, &mut dirs)?;
        }
        let loader = dirs
            .iter()
            .find_map(|dir| loader_in(dir))
            .with_context(|| format!("no loader of shared libraries below {}", root.display()))?;
        let path: Vec<_> = dirs.iter().map(|dir| dir.to_string_lossy()).collect();
        Ok(Self {
            root: root.to_owned(),
            loader,
            path: path.join(":"),
        })
    }

    /// The libraries that a program loads; none for a static one.
    fn loaded_by(&self, program: &Program) -> Result<Option<Vec<PathBuf>>> {
        let file = program.file_in(&self.root)?;
        let dynamic = Command::new(&self.loader).arg("--verify").arg(&file).output()?;
        if !dynamic.status.success() {
            return Ok(None);
        }
        let mut list = Command::new(&self.loader);
        list.args(["--library-path", &self.path, "--list"]).arg(&file);
        let text = output_of(&mut list).with_context(|| format!("{} lacks a library", file.display()))?;
        let mut loaded = Vec::new();
        for line in text.lines() {
            // `libm.so.6 => /…/libm.so.6 (0x…)`; the loader and the kernel's own library have no arrow.
            let Some((name, rest)) = line.split_once(" => ") else {
                continue;
            };
            let library = PathBuf::from(rest.split(" (").next().unwrap_or(rest));
            if !library.starts_with(&self.root) {
                bail!(
                    "{} would load {} from outside: {rest}",
                    file.display(),
                    name.trim()
                );
            }
            loaded.push(library);
        }
        Ok(Some(loaded))
    }

    /// Writes the script that starts a program.
    fn write_script(&self, program: &Program) -> Result<()> {
        let root = self.root.to_string_lossy();
        let place = |text: &str| quoted(&text.replace('@', &root));
        let mut words = Vec::new();
        if program.has_own_root {
            return self.write(program, &self.in_own_root(program)?);
        }
        if !program.env.is_empty() {
            words.push("env".to_owned());
            words.extend(
                program
                    .env
                    .iter()
                    .map(|(name, value)| format!("{name}={}", place(value))),
            );
        }
        if self.loaded_by(program)?.is_some() {
            words.push(quoted(&self.loader.to_string_lossy()));
            words.push(format!(
                "--library-path {} --argv0 {}",
                quoted(&self.path),
                program.name
            ));
        }
        words.push(quoted(&program.file_in(&self.root)?.to_string_lossy()));
        words.extend(program.args.iter().map(|argument| place(argument)));
        self.write(program, &words.join(" "))
    }

    /// The command that starts a program in a root of its own.
    fn in_own_root(&self, program: &Program) -> Result<String> {
        for dir in SHARED_DIRS {
            let dir = self.root.join(dir);
            fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        program.file_in(&self.root)?;
        let script = format!(
            "for dir in {}; do mount --rbind \"/$dir\" \"$0/$dir\" || exit; done; \
             exec env -i HOME=/tmp \"$(command -v chroot)\" \"$0\" \"$@\"",
            SHARED_DIRS.join(" ")
        );
        let root = self.root.to_string_lossy();
        let inside = format!("/{}", program.file);
        let words = ["unshare", "--mount", "sh", "-c", &script, &root, &inside];
        let words = words.iter().chain(program.args).map(|word| quoted(word));
        Ok(words.collect::<Vec<_>>().join(" "))
    }

    fn write(&self, program: &Program, command: &str) -> Result<()> {
        let script = self.root.join(SCRIPTS).join(program.name);
        fs::write(&script, format!("#!/bin/sh\nexec {command} \"$@\"\n"))
            .with_context(|| format!("cannot write {}", script.display()))?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        Ok(())
    }
}

/// Quoted for a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn stamp(root: &Path) -> PathBuf {
    root.join("complete")
}

/// Adds `dir`, and those below it, to `found` where shared libraries lie in them.
fn find_libraries(dir: &Path, depth: usize, found: &mut BTreeSet<PathBuf>) -> Result<()> {
    if !dir.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            if depth > 0 && !path.is_symlink() {
                find_libraries(&path, depth - 1, found)?;
            }
        } else if file_name(&path).contains(".so") {
            found.insert(dir.to_owned());
        }
    }
    Ok(())
}

/// The loader of programs of this machine's kind in a directory.
fn loader_in(dir: &Path) -> Option<PathBuf> {
    let mut loaders: Vec<_> = fs::read_dir(dir)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| file_name(path).starts_with("ld-linux") && path.is_file())
        .collect();
    loaders.sort();
    loaders.into_iter().next()
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moved_or_older_bundle_is_not_complete() {
        const PROGRAMS: &[Program] = &[Program::new("a", "usr/bin/a")];
        let bundle = Bundle {
            name: "none",
            packages: &["a", "b"],
            programs: PROGRAMS,
        };
        let here = bundle.description(Path::new("/here"));
        assert_ne!(here, bundle.description(Path::new("/there")));
        let more = Bundle {
            packages: &["a", "b", "c"],
            ..bundle
        };
        assert_ne!(here, more.description(Path::new("/here")));
    }

    #[test]
    fn a_file_is_found_below_a_directory_that_is_named_by_a_version() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("lib/12")).unwrap();
        let program = Program::new("a", "lib/*/a");
        let error = program.file_in(root.path()).unwrap_err();
        assert!(error.to_string().contains("not in its package"), "{error}");
        let file = root.path().join("lib/12/a");
        fs::write(&file, "").unwrap();
        assert_eq!(program.file_in(root.path()).unwrap(), file);
    }

    #[test]
    fn a_path_with_a_quote_stays_one_word_of_the_shell() {
        let path = "/home/o'neil dir/x";
        let output = Command::new("sh")
            .args(["-c", &format!("printf %s {}", quoted(path))])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), path);
    }
}

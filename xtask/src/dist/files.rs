//! The files that packages and images bring, each at its place below a directory.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::{
    epoch::Epoch,
    release::{Release, copy, empty},
};
use crate::workspace::{Workspace, run};

/// Units and configuration: path in the checkout, place.
const FILES: [(&str, &str); 5] = [
    ("dist/lb.service", "usr/lib/systemd/system/lb.service"),
    (
        "dist/lb-decap@.service",
        "usr/lib/systemd/system/lb-decap@.service",
    ),
    ("dist/lb.sysusers", "usr/lib/sysusers.d/lb.conf"),
    ("dist/lb.tmpfiles", "usr/lib/tmpfiles.d/lb.conf"),
    ("dist/lb.toml", "etc/lb/lb.toml"),
];
/// Where documents go.
const DOCUMENTS: &str = "usr/share/doc/lb";
/// Documents besides those in `docs`.
const OTHER_DOCUMENTS: [&str; 4] = [
    "README.md",
    "CHANGELOG.md",
    "contrib/prometheus/lb.rules.yml",
    "contrib/grafana/lb.json",
];
/// The licences.
pub(super) const LICENCES: [&str; 3] = ["LICENSE-MIT", "LICENSE-APACHE", "LICENSE-GPL-2.0"];
/// Shells, and where the names of their completions go; that of zsh is the distribution's.
const COMPLETIONS: [(&str, &str); 2] = [
    ("bash", "usr/share/bash-completion/completions/lb"),
    ("fish", "usr/share/fish/vendor_completions.d/lb.fish"),
];

/// The files of a package, below a directory.
pub(super) struct Files {
    /// The directory.
    pub(super) dir: PathBuf,
    /// The checkout that they come from.
    pub(super) root: PathBuf,
}

impl Files {
    /// Puts them in place; `zsh` is the directory of zsh's completions below `usr/share/zsh`.
    ///
    /// # Errors
    /// When one is missing, or `lb` cannot write its pages.
    pub(super) fn of(workspace: &Workspace, release: &Release, zsh: &str, epoch: &Epoch) -> Result<Self> {
        let dir = release.work.join("files");
        empty(&dir)?;
        copy(&release.binary, &dir.join("usr/bin/lb"))?;
        for (from, to) in FILES {
            copy(&workspace.root.join(from), &dir.join(to))?;
        }
        documents(workspace, &dir.join(DOCUMENTS))?;
        run(release
            .run()
            .arg("man")
            .arg(dir.join("usr/share/man/man1"))
            .stdout(std::process::Stdio::null()))?;
        for section in ["man1", "man5"] {
            for page in fs::read_dir(dir.join("usr/share/man").join(section))? {
                compress(&page?.path())?;
            }
        }
        let changes = dir.join(DOCUMENTS).join("changelog");
        fs::rename(dir.join(DOCUMENTS).join("CHANGELOG.md"), &changes)?;
        compress(&changes)?;
        let zsh = format!("usr/share/zsh/{zsh}/_lb");
        for (shell, place) in COMPLETIONS.into_iter().chain([("zsh", zsh.as_str())]) {
            let script = release.run().args(["completions", shell]).output()?;
            ensure!(script.status.success(), "no completions for {shell}");
            let place = dir.join(place);
            fs::create_dir_all(place.parent().context("a file without a directory")?)?;
            fs::write(place, script.stdout)?;
        }
        epoch.stamp(&dir)?;
        let root = workspace.root.clone();
        Ok(Self { dir, root })
    }

    /// Writes a file of the package.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn write(&self, place: &str, content: &str) -> Result<PathBuf> {
        let path = self.dir.join(place);
        fs::create_dir_all(path.parent().context("a file without a directory")?)?;
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// A text of the checkout with words replaced.
    ///
    /// # Errors
    /// When there is no such text.
    pub(super) fn template(&self, name: &str, words: &[(&str, &str)]) -> Result<String> {
        let path = self.root.join(name);
        let mut text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        for (from, to) in words {
            text = text.replace(from, to);
        }
        Ok(text)
    }
}

/// Copies the documents that users read.
pub(super) fn documents(workspace: &Workspace, to: &Path) -> Result<()> {
    for file in OTHER_DOCUMENTS {
        copy(&workspace.root.join(file), &to.join(file))?;
    }
    copy_all(&workspace.root.join("docs"), &to.join("docs"))
}

/// Copies the files of a directory and of those below it.
fn copy_all(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let (file, copied) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_all(&file, &copied)?;
        } else {
            copy(&file, &copied)?;
        }
    }
    Ok(())
}

/// Compresses a file in its place, as `man` reads it.
pub(super) fn compress(file: &Path) -> Result<()> {
    run(Command::new("gzip")
        .args(["--no-name", "--best", "--force"])
        .arg(file))
}

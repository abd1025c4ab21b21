//! The container image: an archive of the OCI layout, which `skopeo copy oci-archive:FILE`, `podman load` and `docker load` take. A tar and
//! three documents in JSON are all it is.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    epoch::Epoch,
    files,
    release::{Release, copy, empty, sha256},
};
use crate::workspace::{Workspace, run};

/// Directories that the daemon writes to.
const DIRECTORIES: [&str; 3] = ["run/lb", "var/lib/lb", "tmp"];

/// Makes it.
///
/// # Errors
/// When a file is missing.
pub(super) fn make(workspace: &Workspace, release: &Release, epoch: &Epoch) -> Result<PathBuf> {
    let dir = release.work.join("oci");
    let (root, image) = (dir.join("root"), dir.join("image"));
    empty(&root)?;
    copy(&release.binary, &root.join("usr/bin/lb"))?;
    copy(&workspace.root.join("dist/lb.toml"), &root.join("etc/lb/lb.toml"))?;
    for licence in files::LICENCES {
        copy(
            &workspace.root.join(licence),
            &root.join("usr/share/licenses/lb").join(licence),
        )?;
    }
    for place in DIRECTORIES {
        fs::create_dir_all(root.join(place))?;
    }
    epoch.stamp(&root)?;
    let layer = dir.join("layer.tar");
    run(epoch
        .tar()
        .arg("--file")
        .arg(&layer)
        .arg("--directory")
        .arg(&root)
        .arg("."))?;
    let uncompressed = sha256(&layer)?;
    files::compress(&layer)?;

    let blobs = image.join("blobs/sha256");
    empty(&blobs)?;
    let layer = blob(&blobs, &dir.join("layer.tar.gz"), "layer.v1.tar+gzip")?;
    let created = epoch.formatted("+%Y-%m-%dT%H:%M:%SZ")?;
    let config = json!({
        "created": created,
        "architecture": release.arch.debian(),
        "os": "linux",
        "config": {
            "Entrypoint": ["/usr/bin/lb"],
            "Cmd": ["run", "--config", "/etc/lb/lb.toml"],
            "Env": ["PATH=/usr/bin"],
            "Labels": {
                "org.opencontainers.image.title": "lb",
                "org.opencontainers.image.version": release.version,
                "org.opencontainers.image.licenses": "(MIT OR Apache-2.0) AND GPL-2.0-only",
            },
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{uncompressed}")]},
        "history": [{"created": created, "created_by": "cargo xtask dist oci"}],
    });
    let config = document(&dir, &blobs, &config, "config.v1+json")?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [layer],
    });
    let mut manifest = document(&dir, &blobs, &manifest, "manifest.v1+json")?;
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": release.version});
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [manifest],
    });
    fs::write(image.join("index.json"), index.to_string())?;
    fs::write(
        image.join("oci-layout"),
        json!({"imageLayoutVersion": "1.0.0"}).to_string(),
    )?;
    epoch.stamp(&image)?;
    let arch = release.arch.word();
    let archive = release.out.join(format!("lb-{}-{arch}-oci.tar", release.version));
    run(epoch
        .tar()
        .arg("--file")
        .arg(&archive)
        .arg("--directory")
        .arg(&image)
        .args(["blobs", "index.json", "oci-layout"]))?;
    Ok(archive)
}

/// Writes a document as a blob, and describes it.
fn document(dir: &Path, blobs: &Path, content: &Value, kind: &str) -> Result<Value> {
    let file = dir.join(kind);
    fs::write(&file, content.to_string())?;
    blob(blobs, &file, kind)
}

/// Puts a file among the blobs, and describes it.
fn blob(blobs: &Path, file: &Path, kind: &str) -> Result<Value> {
    let digest = sha256(file)?;
    copy(file, &blobs.join(&digest))?;
    Ok(json!({
        "mediaType": format!("application/vnd.oci.image.{kind}"),
        "digest": format!("sha256:{digest}"),
        "size": fs::metadata(file)?.len(),
    }))
}

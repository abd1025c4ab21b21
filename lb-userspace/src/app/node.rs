//! Which balancer this is.

use std::{fs, os::unix::ffi::OsStrExt, path::Path};

use crate::health::stable_hash;

/// The machine's id (machine-id(5)): the same for as long as the machine is.
const MACHINE_ID: &str = "/etc/machine-id";
/// The machine's name, which distinguishes containers and clones of one image.
const HOSTNAME: &str = "/proc/sys/kernel/hostname";

/// A number that differs between balancers and stays over a restart: of the machine's id, its name, and the state
/// directory, which no two balancers of a machine share.
pub(super) fn number(state_dir: &Path) -> u64 {
    // The others suffice if one cannot be read.
    let read = |path| fs::read(path).unwrap_or_default();
    stable_hash(&[
        &read(MACHINE_ID),
        &read(HOSTNAME),
        state_dir.as_os_str().as_bytes(),
    ])
}

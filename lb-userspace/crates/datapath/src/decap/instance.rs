//! Where the program of `lb decap` is pinned: one directory for each interface, which the command holds locked.

use std::{
    fs,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use super::super::{
    netlink::LinkState,
    pin::{self, Pins},
    sys::{self, XdpLinkInfo},
};
use crate::error::DatapathError;

/// The directory of all of them below the pin directory, and the name of the link's pin in each.
const DIRECTORY: &str = "decap";
const LINK: &str = "link";

/// The pin of the program on one interface. The directory's name consists of network namespace and index: interface names may
/// hold dots, which a BPF file system refuses, and may be the same in several namespaces.
pub(super) struct Instance {
    pins: Pins,
    pin_dir: PathBuf,
}

impl Instance {
    /// Makes and locks the directory for an interface of this thread's network namespace, and removes the directories of
    /// missing interfaces.
    ///
    /// # Errors
    /// [`DatapathError::PinDirBusy`]: another `lb decap` runs on the interface.
    pub(super) fn create(pin_dir: &Path, link: &LinkState) -> Result<Self, DatapathError> {
        let namespace = fs::metadata("/proc/thread-self/ns/net").map_err(|source| DatapathError::Io {
            what: "cannot inspect the network namespace".to_owned(),
            source,
        })?;
        let name = format!("{}-{}", namespace.ino(), link.ifindex);
        // Where a file system has to be mounted, that is for all of them.
        pin::make(pin_dir)?;
        let pins = Pins::create(&pin_dir.join(DIRECTORY).join(&name))?;
        for other in directories(pin_dir).filter(|path| !path.ends_with(&name)) {
            let is_gone = sys::pinned_xdp_link(&other.join(LINK)).is_ok_and(|(_, info)| info.ifindex == 0);
            // A directory in use belongs to another command; the next start retries a failed removal.
            if is_gone && let Ok(Some(pins)) = Pins::existing_within(&other, Duration::ZERO) {
                let _ = pin::remove_link(&other.join(LINK));
                pins.remove_base();
            }
        }
        Ok(Self {
            pins,
            pin_dir: pin_dir.to_owned(),
        })
    }

    /// Where the link is pinned.
    pub(super) fn link(&self) -> PathBuf {
        self.pins.base().join(LINK)
    }

    /// The link that an earlier command left, if there is one.
    pub(super) fn pinned(&self) -> Option<(OwnedFd, XdpLinkInfo)> {
        sys::pinned_xdp_link(&self.link()).ok()
    }

    /// Takes the program off, wherever it is, and removes the directory.
    pub(super) fn remove(self) -> Result<(), DatapathError> {
        let link = self.link();
        let removed = if link.exists() {
            pin::remove_link(&link)
        } else {
            Ok(())
        };
        remove_directories(self.pins, &self.pin_dir);
        removed
    }
}

/// Takes off the programs below a pin directory that no command holds; returns in words what was removed.
///
/// # Errors
/// [`DatapathError::PinDirBusy`] for the first that is held; all others are gone.
pub(in super::super) fn remove_leftovers(pin_dir: &Path) -> Result<Vec<String>, DatapathError> {
    let mut removed = Vec::new();
    let mut busy = Ok(());
    for directory in directories(pin_dir) {
        match Pins::existing_within(&directory, Duration::ZERO) {
            Ok(Some(pins)) => {
                let link = directory.join(LINK);
                if let Ok((_, info)) = sys::pinned_xdp_link(&link) {
                    let on = match info.ifindex {
                        0 => "an interface that is gone".to_owned(),
                        ifindex => pin::interface_name(ifindex),
                    };
                    removed.push(format!("decap program {} on {on}", info.program_id));
                    pin::remove_link(&link)?;
                }
                remove_directories(pins, pin_dir);
            }
            Ok(None) => {}
            Err(error) => busy = busy.and(Err(error)),
        }
    }
    busy.map(|()| removed)
}

fn remove_directories(pins: Pins, pin_dir: &Path) {
    pins.remove_base();
    // A directory that cannot be removed holds pins of others.
    let _ = fs::remove_dir(pin_dir.join(DIRECTORY));
    let _ = fs::remove_dir(pin_dir);
}

fn directories(pin_dir: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(pin_dir.join(DIRECTORY)).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path()))
}

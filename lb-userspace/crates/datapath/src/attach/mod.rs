//! The program on interfaces: brought there at the start, by taking over the links of an earlier daemon or by new ones,
//! and kept there.

mod attacher;
mod decision;
mod find;
mod foreign;
mod keeper;
mod reserve;
mod start;

use std::io;

pub use self::start::AttachResult;
pub(super) use self::{
    attacher::{AttachPlan, Attached, Attacher},
    decision::mode,
    find::{Wanted, find, find_one},
    foreign::foreign,
    keeper::{Keeper, KeeperHandle},
    reserve::Reserved,
    start::AttachTask,
};
use super::XdpMode;
use crate::state::xdp_mode::XdpModeChoice;

/// The modes to try, best first.
pub(super) const fn modes(choice: XdpModeChoice) -> &'static [XdpMode] {
    match choice {
        XdpModeChoice::Auto => &[XdpMode::Native, XdpMode::Generic],
        XdpModeChoice::Native => &[XdpMode::Native],
        XdpModeChoice::Generic => &[XdpMode::Generic],
    }
}

/// The system call's error, with what it means here.
pub(super) fn explain(e: &io::Error) -> String {
    match e.raw_os_error() {
        Some(libc::EOPNOTSUPP) => "the driver does not support it".to_owned(),
        Some(libc::ERANGE | libc::EMSGSIZE) => "the interface's MTU is too large for it".to_owned(),
        Some(libc::EBUSY | libc::EEXIST) => "another XDP program is on the interface".to_owned(),
        _ => e.to_string(),
    }
}

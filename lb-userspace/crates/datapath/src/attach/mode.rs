//! XDP modes.

use std::io;

use crate::{interface::XdpMode, netlink::XdpState, state::xdp_mode::XdpModeChoice};

/// The modes to try, best first.
pub(in super::super) const fn modes(choice: XdpModeChoice) -> &'static [XdpMode] {
    match choice {
        XdpModeChoice::Auto => &[XdpMode::Native, XdpMode::Generic],
        XdpModeChoice::Native => &[XdpMode::Native],
        XdpModeChoice::Generic => &[XdpMode::Generic],
    }
}

/// The system call's error, with what it means here.
pub(in super::super) fn explain(e: &io::Error) -> String {
    match e.raw_os_error() {
        Some(libc::EOPNOTSUPP) => "the driver does not support it".to_owned(),
        Some(libc::ERANGE | libc::EMSGSIZE) => "the interface's MTU is too large for it".to_owned(),
        Some(libc::EBUSY | libc::EEXIST) => "another XDP program is on the interface".to_owned(),
        _ => e.to_string(),
    }
}
/// The mode a program runs in.
pub(in super::super) fn mode(state: XdpState) -> XdpMode {
    if state.generic {
        XdpMode::Generic
    } else {
        XdpMode::Native
    }
}

//! Questions to the kernel about links, routes and neighbours, and its notices when they change (rtnetlink(7)).
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "messages and attributes are open sets: newer kernels send more, and most are not for us"
)]

mod client;
mod host;
mod link;
mod pair;
mod readings;
mod stacking;
mod watch;

pub(super) use self::{
    client::{Client, Neighbour, Route},
    link::{LinkState, XdpState},
    watch::{Notice, Notices, Watch},
};
pub use self::{
    host::{HostAddress, TiedTo},
    link::LinkOperation,
    readings::netlink_readings,
};
#[cfg(test)]
pub(super) use self::{link::VlanLink, stacking::Stacking};

//! Interfaces.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::drops::Drops;

/// An interface that is to have the program.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Interface {
    /// Its name; where it is missing, the last one.
    pub name: String,
    /// The configured name.
    #[serde(default)]
    pub configured: String,
    /// Its alternative names.
    #[serde(default)]
    pub altnames: Vec<String>,
    /// Whether it can carry packets: `up`, `no_carrier`, `down` or `missing`.
    #[serde(default)]
    pub link: String,
    /// Its index; 0 while the program does not run on it.
    pub ifindex: u32,
    /// How the program really runs on it.
    pub xdp_mode: XdpMode,
    /// Kernel's id of the program; 0 where it does not run.
    pub program_id: u32,
    /// Times the program was put back while the daemon ran.
    #[serde(default)]
    pub reattachments: u64,
    /// Whether the program of an earlier daemon was replaced without a gap.
    pub took_over: bool,
    /// Its problem, or why the mode differs from the configured one.
    pub note: Option<String>,
    /// Packets received.
    pub packets: u64,
    /// Of these, dropped.
    pub dropped: u64,
    /// Packets dropped, by reason, with those of no service.
    #[serde(default)]
    pub drops: Vec<Drops>,
    /// Of these, received through a tunnel that ends at this machine.
    #[serde(default)]
    pub tunnels_ended: u64,
}

/// How XDP runs on an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the stack, after the packet buffer was made: slower.
    Generic,
    /// It does not.
    None,
}

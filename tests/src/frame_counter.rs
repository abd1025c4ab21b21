//! Counters that the kernel keeps for us: nftables rules on a device's way in or out. They see every frame, so exact
//! figures of the balancer can be held against them.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::netns::Netns;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Bytes of an Ethernet header.
const ETHERNET: u64 = 14;

/// Which way frames pass the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Received.
    In,
    /// Sent.
    Out,
}

/// Frames that matched.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Count {
    /// Frames.
    pub packets: u64,
    /// Their bytes, Ethernet header included.
    pub bytes: u64,
}

/// A running counter.
pub struct FrameCounter {
    ns: Netns,
    table: String,
    way: Way,
}

impl FrameCounter {
    /// Counts frames that match an `nft` expression, for example `ip daddr 192.0.2.1 tcp dport 80`.
    ///
    /// # Errors
    /// When nftables refuses the expression.
    pub fn start(ns: &Netns, device: &str, way: Way, expression: &str) -> Result<Self> {
        // A frame merged from several on its way in would count once.
        ns.run("ethtool", &["-K", device, "gro", "off"])?;
        let table = format!("count{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let hook = match way {
            Way::In => "ingress",
            Way::Out => "egress",
        };
        ns.run_with_input(
            "nft",
            &["-f", "-"],
            &format!(
                "table netdev {table} {{ chain c {{ type filter hook {hook} device {device} priority 0; \
                 {expression} counter; }}; }}"
            ),
        )?;
        Ok(Self {
            ns: ns.clone(),
            table,
            way,
        })
    }

    /// Matches so far.
    ///
    /// # Errors
    /// When nftables does not answer.
    pub fn read(&self) -> Result<Count> {
        let text = self
            .ns
            .run("nft", &["-j", "list", "table", "netdev", &self.table])?;
        let listing: Value = serde_json::from_str(&text)?;
        let rules = listing["nftables"].as_array().context("no listing")?;
        let counter = rules.iter().find_map(|entry| {
            entry["rule"]["expr"]
                .as_array()?
                .iter()
                .find_map(|expr| expr.get("counter"))
        });
        let counter = counter.context("no counter in the listing")?;
        let field = |name: &str| counter[name].as_u64().context("no number in the counter");
        let packets = field("packets")?;
        let header = match self.way {
            // On the way in the header has been taken off already.
            Way::In => ETHERNET * packets,
            Way::Out => 0,
        };
        Ok(Count {
            packets,
            bytes: field("bytes")? + header,
        })
    }
}

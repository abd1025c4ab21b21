//! Everything that is read from datagrams of the kernel, in one place for fuzz targets.

use std::fmt::Debug;

use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage;

use crate::netlink::{client, host, link, watch};

/// What the readers of answers and of notices find in a datagram, one text each, message by message. A message that cannot be read is the
/// text `broken`, and the last one.
#[must_use]
pub fn netlink_readings(datagram: &[u8]) -> Vec<String> {
    let mut readings = Vec::new();
    for message in client::messages(datagram) {
        let Ok(message) = message else {
            readings.push("broken".to_owned());
            continue;
        };
        if let NetlinkPayload::InnerMessage(inner) = &message.payload {
            readings.extend(answers(inner));
        }
        add(&mut readings, watch::notice(message));
    }
    readings
}

fn answers(message: &RouteNetlinkMessage) -> Vec<String> {
    let mut readings = Vec::new();
    add(&mut readings, link::link_state(message.clone()));
    add(&mut readings, link::losses(message.clone()));
    add(&mut readings, host::tied(message.clone()));
    add(&mut readings, host::host_address(message.clone()));
    add(&mut readings, client::address(message.clone()));
    add(&mut readings, client::route(message.clone()));
    add(&mut readings, client::neighbour(message.clone()));
    readings
}

fn add(readings: &mut Vec<String>, reading: Option<impl Debug>) {
    readings.extend(reading.map(|reading| format!("{reading:?}")));
}

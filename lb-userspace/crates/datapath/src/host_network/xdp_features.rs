//! What drivers can do with XDP, as the kernel says since Linux 6.3 (Documentation/netlink/specs/netdev.yaml).

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};

/// Bits of `xdp-act` (include/uapi/linux/netdev.h).
const BASIC: u64 = 1;
const NDO_XMIT: u64 = 4;
const RX_SG: u64 = 32;

/// What a driver can do with XDP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct XdpFeatures {
    /// It runs programs itself: native mode.
    pub native: bool,
    /// It takes frames that programs send, or redirect to it. A veth does while its peer takes frames.
    pub transmits: bool,
    /// It gives programs frames that are longer than one buffer.
    pub multi_buffer: bool,
}

/// Message types, commands and attributes of generic netlink's controller (include/uapi/linux/genetlink.h).
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// Those of the family `netdev`.
const FAMILY: &[u8] = b"netdev\0";
const GET_DEVICE: u8 = 1;
const IFINDEX: u16 = 1;
const XDP_FEATURES: u16 = 3;

/// Bytes of the headers of netlink and of generic netlink, and of an attribute.
const HEADER: usize = 16;
const GENERIC_HEADER: usize = 4;
const ATTRIBUTE_HEADER: usize = 4;
/// Type of a message that reports an error (include/uapi/linux/netlink.h).
const ERROR: u16 = 2;
/// Flag of a request.
const REQUEST: u16 = 1;
/// Most bytes of an answer.
const ANSWER_BYTES: usize = 8192;

/// The questions' socket, and the number of the family.
pub(super) struct NetdevFamily {
    socket: Socket,
    family: u16,
}

impl NetdevFamily {
    /// `None` before Linux 6.3.
    pub(super) fn new() -> Option<Self> {
        let mut socket = Socket::new(NETLINK_GENERIC).ok()?;
        socket.bind_auto().ok()?;
        socket.connect(&SocketAddr::new(0, 0)).ok()?;
        let answer = ask(&socket, CONTROLLER, GET_FAMILY, FAMILY_NAME, FAMILY).ok()?;
        let family = attribute(&answer, FAMILY_ID)?.try_into().ok()?;
        Some(Self {
            socket,
            family: u16::from_ne_bytes(family),
        })
    }

    /// What the driver of an interface can do; `None` if it does not say.
    pub(super) fn features(&self, ifindex: u32) -> Option<XdpFeatures> {
        let device = ifindex.to_ne_bytes();
        XdpFeatures::of(&ask(&self.socket, self.family, GET_DEVICE, IFINDEX, &device).ok()?)
    }
}

impl XdpFeatures {
    /// Reads the attributes of an interface in an answer of the family; `None` if they do not say.
    pub fn of(attributes: &[u8]) -> Option<Self> {
        let bits = u64::from_ne_bytes(attribute(attributes, XDP_FEATURES)?.try_into().ok()?);
        Some(Self {
            native: bits & BASIC != 0,
            transmits: bits & NDO_XMIT != 0,
            multi_buffer: bits & RX_SG != 0,
        })
    }
}

/// Sends a request with one attribute and returns the attributes of the answer.
fn ask(socket: &Socket, family: u16, command: u8, attribute: u16, value: &[u8]) -> io::Result<Vec<u8>> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let request = request(family, command, attribute, value).ok_or_else(invalid)?;
    socket.send(&request, 0)?;
    let mut answer = Vec::with_capacity(ANSWER_BYTES);
    socket.recv(&mut answer, 0)?;
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok());
    if kind.map(u16::from_ne_bytes).ok_or_else(invalid)? == ERROR {
        return Err(io::ErrorKind::NotFound.into());
    }
    answer
        .get(HEADER + GENERIC_HEADER..)
        .map(<[u8]>::to_vec)
        .ok_or_else(invalid)
}

/// `None` if the value is too long for a message.
fn request(family: u16, command: u8, attribute: u16, value: &[u8]) -> Option<Vec<u8>> {
    let attribute_length = ATTRIBUTE_HEADER + value.len();
    let length = HEADER + GENERIC_HEADER + attribute_length.next_multiple_of(4);
    let mut message = Vec::with_capacity(length);
    message.extend(u32::try_from(length).ok()?.to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    // Sequence number and port: one question at a time.
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend(u16::try_from(attribute_length).ok()?.to_ne_bytes());
    message.extend(attribute.to_ne_bytes());
    message.extend(value);
    message.resize(length, 0);
    Some(message)
}

/// The value of an attribute among others, each with length and type in front and on a multiple of four bytes.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    /// Flags beside the type.
    const TYPE: u16 = 0x3fff;
    loop {
        let length = usize::from(u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?) & TYPE;
        let value = attributes.get(ATTRIBUTE_HEADER..length)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_behind_others_and_cut_ones_are_none() {
        let message = request(7, GET_DEVICE, IFINDEX, &[1, 2, 3]).unwrap();
        assert_eq!(message.len(), 28);
        let mut attributes = message[HEADER + GENERIC_HEADER..].to_vec();
        attributes.extend([12, 0, 3, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(attribute(&attributes, IFINDEX), Some(&[1, 2, 3][..]));
        assert_eq!(
            attribute(&attributes, XDP_FEATURES),
            Some(&[5, 0, 0, 0, 0, 0, 0, 0][..])
        );
        assert_eq!(attribute(&attributes, 9), None);
        assert_eq!(attribute(&attributes[..15], XDP_FEATURES), None);
        assert_eq!(attribute(&[0, 0, 0, 0], 9), None, "a length of nothing ends it");
    }

    #[test]
    fn loopback_runs_no_native_programs() {
        let family = NetdevFamily::new();
        let features = family.as_ref().map(|family| family.features(1));
        // Kernels before 6.3 have no such family.
        assert!(
            features.is_none_or(|features| features.is_some_and(|known| !known.native && !known.transmits))
        );
        assert!(family.is_none_or(|family| family.features(u32::MAX).is_none()));
    }
}

//! Datagrams of netlink, as the kernel sends them and broken.

use lb_userspace::datapath::{host_network::XdpFeatures, netlink_readings};

/// Bytes of the header of a message, which begins with the length of both.
const HEADER: usize = 16;
/// Bytes in front of the attributes of a message of generic netlink.
const GENERIC_HEADERS: usize = 20;

pub(crate) fn check(datagram: &[u8]) {
    let readings = netlink_readings(datagram);
    // Whatever it says: it comes to an end.
    let _ = datagram.get(GENERIC_HEADERS..).map(XdpFeatures::of);
    let Some((first, rest)) = first_message(datagram) else {
        // Whatever stands there: it is read once, and nothing behind it.
        assert!(
            readings.len() <= usize::from(!datagram.is_empty()),
            "{readings:?}"
        );
        return;
    };
    let of_first = netlink_readings(first);
    if of_first.iter().any(|reading| reading == "broken") {
        assert_eq!(readings, of_first, "something is read behind a broken message");
        return;
    }
    // A message means the same with others behind it.
    assert_eq!(readings, [of_first, netlink_readings(rest)].concat());
}

/// The first message, and what stands behind it on a multiple of four bytes.
fn first_message(datagram: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u32::from_ne_bytes(datagram.get(..4)?.try_into().ok()?);
    let length = usize::try_from(length).ok()?;
    let first = datagram.get(..length)?;
    (length >= HEADER).then(|| {
        (
            first,
            datagram.get(length.next_multiple_of(4)..).unwrap_or_default(),
        )
    })
}

//! Filters by number.

use super::*;

#[test]
fn a_prefix_masks_its_own_bits_of_either_family() {
    let cases = [
        ("192.0.2.7", 24, ["192.0.2.1", "192.0.2.255"], "192.0.3.1"),
        ("192.0.2.7", 32, ["192.0.2.7", "192.0.2.7"], "192.0.2.6"),
        (
            "2001:db8::1",
            32,
            ["2001:db8::", "2001:db8:ffff::1"],
            "2001:db9::1",
        ),
        (
            "2001:db8::1",
            47,
            ["2001:db8:0::", "2001:db8:1::1"],
            "2001:db8:2::1",
        ),
        ("0.0.0.0", 0, ["10.0.0.1", "255.255.255.255"], "2001:db8::1"),
    ];
    for (prefix, length, inside, outside) in cases {
        let parse = |text: &str| text.parse::<IpAddr>().unwrap();
        let mask = mask(parse(prefix), length);
        let masked = |text: &str| {
            let address = NetAddr::from(parse(text));
            std::array::from_fn::<u32, 4, _>(|word| address.0[word] & mask.0[word])
        };
        for address in inside {
            assert_eq!(masked(address), masked(prefix), "{address} in {prefix}/{length}");
        }
        assert_ne!(masked(outside), masked(prefix), "{outside} in {prefix}/{length}");
    }
}

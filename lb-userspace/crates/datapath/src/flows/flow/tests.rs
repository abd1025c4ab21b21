//! How a flow's state, age and filter are judged.

use lb_common::{
    flow::{FIN, RST},
    service::UDP,
};

use super::*;
use crate::state::words::Word as _;

const fn half(state: u8, last_seen: u32) -> Half {
    Half { state, last_seen }
}

#[test]
fn a_flow_is_closed_exactly_when_it_does_not_count_as_active() {
    use FlowState::{Closed, Closing, Established, Opening};
    let open = PROVEN;
    for (what, protocol, forward, reply, state) in [
        ("a SYN", TCP, half(0, 5), half(0, 5), Opening),
        ("a SYN-ACK", TCP, half(0, 5), half(open, 5), Opening),
        (
            "a SYN that gets no SYN-ACK but is acknowledged",
            TCP,
            half(open, 5),
            half(0, 5),
            Opening,
        ),
        ("a handshake", TCP, half(open, 5), half(open, 5), Established),
        (
            "the client's FIN",
            TCP,
            half(open | FIN, 5),
            half(open, 5),
            Closing,
        ),
        (
            "the backend's FIN",
            TCP,
            half(open, 5),
            half(open | FIN, 5),
            Closing,
        ),
        ("both FINs", TCP, half(open | FIN, 5), half(open | FIN, 5), Closed),
        ("a refusal", TCP, half(0, 5), half(RST, 5), Closed),
        ("a RST", TCP, half(open, 5), half(open | RST, 5), Closed),
        // The client's packets go on long after it.
        (
            "a RST that the other end ignored",
            TCP,
            half(open, 9),
            half(open | RST, 5),
            Established,
        ),
        ("a question", UDP, half(0, 5), half(0, 5), Opening),
        (
            "questions without an answer",
            UDP,
            half(open, 5),
            half(0, 5),
            Opening,
        ),
        ("an answer", UDP, half(0, 5), half(open, 5), Established),
    ] {
        assert_eq!(FlowState::of(protocol, forward, reply), state, "{what}");
    }
}

#[test]
fn an_age_counts_over_the_end_of_its_clock_and_is_never_in_the_future() {
    for (now, began, expected) in [
        (10_000, 1_000, 9),
        (10_000, 10_000, 0),
        (500, u32::MAX - 1_499, 2),
        // It began after the clock was read.
        (10_000, 10_005, 0),
    ] {
        assert_eq!(age(now, began), expected, "{began} to {now}");
    }
}

#[test]
fn a_filter_takes_what_it_names_and_nothing_else() {
    let key = |last| ServiceKey::new([192, 0, 2, last].into(), 80, Protocol::Tcp);
    let at = |last| SocketAddr::from(([10, 0, 0, last], 8080));
    let all = FlowFilter::default();
    assert!(all.is_empty() && all.takes_backend(&key(1), at(1)) && all.takes_family(false));
    let of_service = FlowFilter {
        service: Some(key(1)),
        ..all.clone()
    };
    assert!(of_service.takes_backend(&key(1), at(1)) && !of_service.takes_backend(&key(2), at(1)));
    assert!(of_service.takes_family(true) && !of_service.takes_family(false));
    // Two services may share an endpoint.
    let of_backend = FlowFilter {
        backends: Some([(key(1), at(1))].into()),
        ..all.clone()
    };
    assert!(of_backend.takes_backend(&key(1), at(1)));
    assert!(!of_backend.takes_backend(&key(2), at(1)) && !of_backend.takes_backend(&key(1), at(2)));
    let of_client = FlowFilter {
        client: Some("2001:db8::/32".parse().unwrap()),
        ..all
    };
    assert!(!of_client.is_empty() && of_client.takes_family(false) && !of_client.takes_family(true));
}

#[test]
fn every_state_has_a_word() {
    let words: Vec<_> = FlowState::WORDS.iter().map(|(_, word)| *word).collect();
    assert_eq!(words, ["opening", "established", "closing", "closed"]);
}

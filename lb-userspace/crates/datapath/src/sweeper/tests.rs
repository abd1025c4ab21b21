//! Which flows are swept, and when.

use lb_common::{
    flow::{FIN, PROVEN, RST},
    limits::{
        TCP_CLOSED_IDLE_SECS, TCP_ESTABLISHED_IDLE_SECS, TCP_OPENING_IDLE_SECS, TCP_RESET_IDLE_SECS,
        UDP_IDLE_SECS, UDP_OPENING_IDLE_SECS,
    },
    service::UDP,
};

use super::*;

const NOW: u32 = 100_000;

const fn half(state: u8, idle: u32) -> Half {
    Half {
        state,
        last_seen: NOW - idle,
    }
}

#[test]
fn a_flow_stays_exactly_as_long_as_it_may_be_used() {
    use Verdict::{Active, Closed, Remove};
    let open = PROVEN;
    let cases = [
        ("fresh", TCP, half(0, 0), half(0, 0), Active),
        (
            "half open too long",
            TCP,
            half(0, TCP_OPENING_IDLE_SECS),
            half(0, TCP_OPENING_IDLE_SECS),
            Remove,
        ),
        (
            "half open just long enough",
            TCP,
            half(0, TCP_OPENING_IDLE_SECS - 1),
            half(0, TCP_OPENING_IDLE_SECS),
            Active,
        ),
        (
            "idle for two hours",
            TCP,
            half(open, TCP_ESTABLISHED_IDLE_SECS - 1),
            half(open, TCP_ESTABLISHED_IDLE_SECS - 1),
            Active,
        ),
        (
            "idle for too long",
            TCP,
            half(open, TCP_ESTABLISHED_IDLE_SECS),
            half(open, TCP_ESTABLISHED_IDLE_SECS),
            Remove,
        ),
        (
            "only the server speaks",
            TCP,
            half(open, TCP_ESTABLISHED_IDLE_SECS + 9),
            half(open, 3),
            Active,
        ),
        ("one side closed", TCP, half(open | FIN, 5), half(open, 5), Active),
        (
            "both sides closed",
            TCP,
            half(open | FIN, 5),
            half(open | FIN, 5),
            Closed,
        ),
        (
            "closed and quiet",
            TCP,
            half(open | FIN, TCP_CLOSED_IDLE_SECS),
            half(open | FIN, TCP_CLOSED_IDLE_SECS),
            Remove,
        ),
        (
            "reset by the server",
            TCP,
            half(open, 1),
            half(open | RST, 1),
            Closed,
        ),
        (
            "reset by one side, which may be forged",
            TCP,
            half(open | RST, TCP_CLOSED_IDLE_SECS),
            half(open, TCP_CLOSED_IDLE_SECS),
            Closed,
        ),
        (
            "reset by one side, and quiet since",
            TCP,
            half(open | RST, TCP_RESET_IDLE_SECS),
            half(open, TCP_RESET_IDLE_SECS),
            Remove,
        ),
        (
            "reset by one side, and the other goes on",
            TCP,
            half(open | RST, TCP_RESET_IDLE_SECS + 10),
            half(open, TCP_RESET_IDLE_SECS),
            Active,
        ),
        (
            "reset by both sides",
            TCP,
            half(open | RST, TCP_CLOSED_IDLE_SECS),
            half(open | RST, TCP_CLOSED_IDLE_SECS),
            Remove,
        ),
        (
            "unanswered datagrams",
            UDP,
            half(open, UDP_OPENING_IDLE_SECS),
            half(0, UDP_OPENING_IDLE_SECS),
            Remove,
        ),
        (
            "answered datagrams",
            UDP,
            half(open, UDP_IDLE_SECS - 1),
            half(open, UDP_IDLE_SECS - 1),
            Active,
        ),
    ];
    for (name, protocol, forward, reply, verdict) in cases {
        let timeouts = Some(IdleTimeouts::of(protocol));
        assert_eq!(
            decide(
                NOW,
                protocol,
                forward,
                Some(reply),
                true,
                timeouts,
                TCP_OPENING_IDLE_SECS
            ),
            verdict,
            "{name}"
        );
    }
}

/// A service's own times count, each for its state; before they are known, no flow is forgotten for being idle.
#[test]
fn each_service_has_its_own_times() {
    const OWN: IdleTimeouts = IdleTimeouts {
        established: 30,
        half_open: 20,
        closed: 3,
    };
    for (protocol, forward, reply, limit) in [
        (TCP, PROVEN, PROVEN, 30),
        (TCP, 0, 0, 20),
        (TCP, PROVEN | FIN, PROVEN | FIN, 3),
        (UDP, PROVEN, PROVEN, 30),
        (UDP, PROVEN, 0, 20),
    ] {
        let idle = |secs, timeouts| {
            let (forward, reply) = (half(forward, secs), half(reply, secs));
            decide(
                NOW,
                protocol,
                forward,
                Some(reply),
                true,
                timeouts,
                TCP_OPENING_IDLE_SECS,
            )
        };
        assert_ne!(idle(limit - 1, Some(OWN)), Verdict::Remove, "{forward} {reply}");
        assert_eq!(idle(limit, Some(OWN)), Verdict::Remove, "{forward} {reply}");
        assert_ne!(idle(90_000, None), Verdict::Remove, "{forward} {reply}");
    }
}

#[test]
fn flows_without_owner_or_answer_go_at_once() {
    let fresh = half(PROVEN, 0);
    assert_eq!(
        decide(NOW, TCP, fresh, Some(fresh), false, None, TCP_OPENING_IDLE_SECS),
        Verdict::Remove
    );
    assert_eq!(
        decide(NOW, TCP, fresh, None, true, None, TCP_OPENING_IDLE_SECS),
        Verdict::Remove
    );
}

#[test]
fn a_packet_seen_after_the_clock_was_read_is_no_idle_flow() {
    let ahead = Half {
        state: PROVEN,
        last_seen: NOW + 1,
    };
    let timeouts = Some(IdleTimeouts::of(TCP));
    assert_eq!(
        decide(
            NOW,
            TCP,
            ahead,
            Some(ahead),
            true,
            timeouts,
            TCP_OPENING_IDLE_SECS
        ),
        Verdict::Active
    );
}

#[test]
fn half_open_flows_stay_for_less_and_less_as_the_table_fills() {
    for (fill, secs) in [(0, 60), (128, 60), (176, 33), (224, 5), (256, 5)] {
        assert_eq!(opening_secs(fill), secs, "{fill}");
    }
    let idle = |state| half(state, OPENING_LEAST_SECS);
    let decided = |state| {
        decide(
            NOW,
            TCP,
            idle(state),
            Some(idle(PROVEN)),
            true,
            Some(IdleTimeouts::of(TCP)),
            OPENING_LEAST_SECS,
        )
    };
    assert_eq!(decided(0), Verdict::Remove);
    assert_eq!(
        decided(PROVEN),
        Verdict::Active,
        "an established flow loses nothing"
    );
}

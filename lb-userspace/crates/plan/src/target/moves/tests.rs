use super::*;
use crate::{
    health::Health,
    state::{backend::Admin, testing},
};

#[test]
fn share_of_moved_flows_equals_share_of_moved_slots() {
    let four = |weights: [u16; 4]| {
        let [a, b, c, d] = weights;
        testing::desired([testing::service(
            "web",
            1,
            &[("a", a), ("b", b), ("c", c), ("d", d)],
        )])
    };
    let before = four([100; 4]);
    let none = testing::desired([testing::service("web", 1, &[])]);
    for (after, from, to) in [
        (before.clone(), 0.0, 0.0),
        (four([100, 100, 100, 0]), 0.25, 0.29),
        (four([100, 100, 100, 50]), 0.1, 0.2),
        (none.clone(), 1.0, 1.0),
    ] {
        let moved = moves(&before, &after, &HealthView::new(), None, &RingSizes::default())
            [&"web".parse().unwrap()]
            .share;
        assert!(
            (from..=to).contains(&moved),
            "{moved} is not between {from} and {to}"
        );
    }
    let down = HealthView::from([(testing::id("web", "d"), Health::Down)]);
    let nothing = [Moves::default()];
    let moved = moves(
        &before,
        &four([100, 100, 100, 0]),
        &down,
        None,
        &RingSizes::default(),
    );
    assert_eq!(
        moved.into_values().collect::<Vec<_>>(),
        nothing,
        "a dead backend has no flows to lose"
    );
    let moved = moves(&none, &none, &HealthView::new(), None, &RingSizes::default());
    assert_eq!(moved.into_values().collect::<Vec<_>>(), nothing);
    assert!(
        moves(
            &testing::desired([]),
            &before,
            &HealthView::new(),
            None,
            &RingSizes::default()
        )
        .is_empty(),
        "new services move no flows"
    );
}

/// An operator who reads that established flows move looks for broken connections.
#[test]
fn established_flows_move_only_from_backends_that_lose_them() {
    let old = testing::desired([testing::service("web", 1, &[("a", 10), ("b", 10)])]);
    let with = |change: &dyn Fn(&mut Service)| {
        let mut service = testing::service("web", 1, &[("a", 10), ("b", 10)]);
        change(&mut service);
        testing::desired([service])
    };
    let web: ServiceName = "web".parse().unwrap();
    let a: BackendName = "a".parse().unwrap();
    let at_once = Some((&web, &a));
    for (what, new, at_once, losers) in [
        (
            "drained",
            with(&|service| service.backends[0].admin = Admin::Draining),
            None,
            0,
        ),
        (
            "weight 0",
            with(&|service| service.backends[0].weight = 0),
            None,
            0,
        ),
        (
            "another weight",
            with(&|service| service.backends[0].weight = 90),
            None,
            0,
        ),
        (
            "removed",
            with(&|service| drop(service.backends.remove(0))),
            None,
            0,
        ),
        (
            "removed at once",
            with(&|service| drop(service.backends.remove(0))),
            at_once,
            1,
        ),
        (
            "disabled",
            with(&|service| service.backends[0].admin = Admin::Disabled),
            None,
            1,
        ),
    ] {
        let moved = &moves(&old, &new, &HealthView::new(), at_once, &RingSizes::default())[&web];
        assert_eq!(moved.losers.len(), losers, "{what}");
        assert!(moved.share > 0.0, "{what}");
    }
}

/// An operator who removes a service, or gives it another address, reads how many flows that ends.
#[test]
fn all_flows_end_at_a_place_that_a_service_leaves() {
    let service = |name, host| testing::service(name, host, &[("a", 10), ("b", 10)]);
    let old = testing::desired([service("api", 2), service("web", 1)]);
    let (api, web) = (service("api", 2).key, service("web", 1).key);
    let mut port = service("web", 1);
    port.key.port += 1;
    for (what, new, left) in [
        (
            "the same",
            vec![service("api", 2), service("web", 1)],
            [None, None],
        ),
        ("removed", vec![service("api", 2)], [None, Some(web)]),
        ("all removed", vec![], [Some(api), Some(web)]),
        ("another port", vec![service("api", 2), port], [None, Some(web)]),
        (
            "another name",
            vec![service("api", 2), service("www", 1)],
            [None, None],
        ),
        (
            "names exchanged",
            vec![service("web", 2), service("api", 1)],
            [None, None],
        ),
        (
            "the other one's place",
            vec![service("web", 2)],
            [None, Some(web)],
        ),
    ] {
        let new = testing::desired(new);
        let moved = moves(&old, &new, &HealthView::new(), None, &RingSizes::default());
        assert_eq!(moved.len(), 2, "{what}");
        for ((name, moves), left) in moved.into_iter().zip(left) {
            let share = if left.is_some() { 1.0 } else { 0.0 };
            let expected = Moves {
                share,
                losers: Vec::new(),
                left,
            };
            assert_eq!(moves, expected, "{what}: {name}");
        }
    }
}

//! When the whole program is loaded.

use lb_common::stage::StageSet;

use super::*;
use crate::needs::tests::{CHANGING, STABLE, ring, settings};

#[test]
fn the_first_program_has_what_was_programmed_before_it_runs() {
    let first = Needs::of(StageSet::of_any_packet());
    let stages = Stages::default();
    stages.ensure(&[ring(STABLE)]).unwrap();
    stages.ensure(&[settings(true, false)]).unwrap();
    let needs = of_steps(&[settings(true, false)]);
    assert_eq!(stages.are_first(first), Err(needs));
    stages.ensure(&[ring(CHANGING)]).unwrap();
    let needs = Needs {
        late_maps: true,
        ..needs
    };
    assert_eq!(stages.are_first(first), Err(needs));
    assert_eq!(stages.are_first(first.and(needs)), Ok(()));
}

#[test]
fn what_the_first_program_lacks_is_refused_if_the_whole_cannot_be_loaded() {
    let stages = Stages::default();
    let any = Needs::of(StageSet::of_any_packet());
    stages
        .are_first(any.and(of_steps(&[settings(true, false)])))
        .unwrap();
    for step in [ring(STABLE), settings(true, false)] {
        assert_eq!(stages.ensure(&[step]), Ok(()));
    }
    for step in [ring(CHANGING), settings(false, true)] {
        assert!(stages.ensure(&[step]).is_err());
    }
    stages.are_whole();
    for step in [ring(CHANGING), settings(false, true)] {
        assert_eq!(stages.ensure(&[step]), Ok(()));
    }
}

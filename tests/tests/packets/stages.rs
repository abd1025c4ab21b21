//! Stages that are not there: the kernel, or somebody's hand, can empty the map of stages.

use anyhow::Result;
use aya::maps::{Map, MapData, ProgramArray};
use lb_common::{reason::Reason, stage::Stage};

use super::{
    SYN,
    bench::{ABORTED, Bench, L2DSR},
    build::{Frame, V4},
};

#[test]
fn a_packet_whose_stage_is_missing_is_counted_and_others_go_on() -> Result<()> {
    let bench = Bench::new()?;
    let nat = Frame::tcp(V4.client(1), V4.vip(80), SYN, 64, b"");
    let as_is = Frame::tcp(V4.client(1), V4.vip(L2DSR), SYN, 64, b"");
    let (_, _, reason) = bench.run(&nat)?;
    assert_eq!(reason, Reason::SentBack);
    let pin = bench.stages_pin()?;
    let mut stages = ProgramArray::try_from(Map::from_map_data(MapData::from_pin(pin)?)?)?;
    stages.clear_index(&Stage::Nat.slot(false))?;
    let (action, frame, reason) = bench.run(&nat)?;
    assert_eq!((action, reason), (ABORTED, Reason::StageMissing));
    assert_eq!(frame.bytes(), nat.bytes());
    let (_, _, reason) = bench.run(&as_is)?;
    assert_eq!(reason, Reason::SentBack);
    // The next daemon finds that the program is not complete, and loads another.
    let bench = bench.reopened()?;
    let (_, _, reason) = bench.run(&nat)?;
    assert_eq!(reason, Reason::SentBack);
    Ok(())
}

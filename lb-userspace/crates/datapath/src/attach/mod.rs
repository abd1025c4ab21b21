//! The program on interfaces: brought there at the start, by taking over the links of an earlier daemon or by new ones,
//! and kept there.

mod attacher;
mod decision;
mod find;
mod foreign;
pub(super) mod keeper;
mod mode;
mod reserve;
mod start;

pub use self::start::AttachResult;
pub(super) use self::{
    attacher::AttachPlan,
    find::{find, find_one},
    foreign::foreign,
    keeper::Keeper,
    mode::{explain, mode, modes},
    reserve::Reserved,
    start::AttachTask,
};

//! Explains the verdict for a packet step by step, from the tables that the XDP program reads, without sending one.
//!
//! An explanation goes from stage to stage as the program does: both take the order of their decisions from [`lb_wire::order`], and the
//! rules from `lb-common`. An explanation only reads, so it changes no flow.

mod explanation;
mod frame;
mod named;
mod pick;
mod question;
mod service;
mod stages;
#[cfg(test)]
mod tests;
mod transmit;
mod tunnel;
mod walk;
mod words;

use std::io;

use self::walk::Walk;
pub use self::{
    explanation::Explanation,
    question::{Outer, OuterKind, Question},
};
use crate::control::ControlView;
pub use crate::datapath::{Answers, AnyTuple, ReadTables, Translated};

/// Explains the verdict for a packet. `view` has the names.
///
/// # Errors
/// When a table cannot be read.
pub fn explain(question: &Question, tables: &dyn ReadTables, view: &ControlView) -> io::Result<Explanation> {
    if let Some(outer) = &question.outer {
        return tunnel::explain(outer, question, tables, view);
    }
    let tuple = question
        .tuple()
        .ok_or_else(|| io::Error::other("source and destination are of different families"))?;
    Walk::new(question, tuple, tables, view).explain()
}

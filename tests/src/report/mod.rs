//! Results of a benchmark: measured values, tables, plots, and the files that hold them.

pub mod document;
pub mod machine;
pub mod plot;
pub mod samples;
pub mod table;

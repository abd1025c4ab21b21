//! What the operator wants (desired state) and what follows from it and from health (effective state).

pub mod backend;
pub mod desired;
pub mod names;
pub mod service;

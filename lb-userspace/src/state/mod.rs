//! What the operator wants, what follows from it, and how it is stored.

pub use lb_model::state::*;
pub use lb_plan::target::*;

pub mod store;
pub mod stored;

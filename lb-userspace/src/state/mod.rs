//! Desired and effective state, and the store.

pub use lb_model::state::*;
pub use lb_plan::target::*;

pub mod store;
pub mod stored;

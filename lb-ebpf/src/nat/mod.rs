//! Mode `nat`: both addresses and both ports are the flow's, in each direction.

pub(crate) mod give_way;
pub(crate) mod known;
pub(crate) mod new_flow;
pub(crate) mod port;
pub(crate) mod progress;
pub(crate) mod signals;
pub(crate) mod track;

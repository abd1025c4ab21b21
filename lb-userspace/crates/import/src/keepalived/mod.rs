//! keepalived's configuration, as far as it is about virtual servers.

mod check;
mod import;
mod reasons;
mod server;
mod tree;
mod words;

pub(crate) use self::import::import;

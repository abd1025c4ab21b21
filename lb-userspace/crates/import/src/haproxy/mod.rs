//! HAProxy's configuration.

mod acl;
mod address;
mod backends;
mod bind;
mod check;
mod http_check;
mod import;
mod profile;
mod reasons;
mod sections;
mod server;
mod tcp_check;
mod words;

pub(crate) use self::import::import;

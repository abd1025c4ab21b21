//! Configurations of HAProxy, keepalived and IPVS as configuration files of `lb`.
//!
//! [`import()`] maps what `lb` has, and names every other line in a comment with the reason and what is nearest. A source becomes
//! statements, each of whose words ends in a mapping or a remark ([`Remark`]); services are drafted from them, and whatever the
//! desired state's own checks refuse is taken out again, with the reason. So `lb check-config` accepts every result.
//!
//! This crate must not know files, sockets, maps or callers: it gets texts, and files that these include by a function.

mod draft;
mod error;
mod haproxy;
mod import;
mod include;
mod ipvs;
mod ipvs_words;
mod keepalived;
mod kind;
mod names;
mod render;
mod statement;

pub use self::{
    error::ImportError,
    import::{Source, import},
    include::{Files, Include},
    kind::Kind,
    render::Imported,
    statement::Remark,
};

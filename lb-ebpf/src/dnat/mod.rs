//! Mode `dnat`: the client's packets get the backend's address and port, and keep their source. No flow is recorded:
//! a reply is recognized by its source endpoint, and gets the service's address and port again.

pub(crate) mod reply;
pub(crate) mod route;
pub(crate) mod send;

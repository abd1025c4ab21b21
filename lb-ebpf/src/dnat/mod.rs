//! Mode `dnat`: the client's packets get the backend's address and port, and keep their source. Nothing is remembered about
//! that: a reply is told by the endpoint that it comes from, and gets the service's address and port again.

pub(crate) mod reply;
pub(crate) mod route;
pub(crate) mod send;

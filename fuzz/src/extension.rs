//! Extension headers of IPv6, without the function of its own that the XDP program has for the verifier.

pub(crate) use crate::parse::extension_headers as headers;

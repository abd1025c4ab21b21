//! Extension headers of IPv6, without the function of its own that the XDP program has for the verifier.

pub(crate) use crate::walk::extension_headers as headers;

//! The id of a target.

use std::fmt;

/// The id of a target. The library neither makes nor interprets ids: its user chooses the type.
pub trait TargetId: Clone + Ord + fmt::Debug + Send + Sync + 'static {
    /// The service that its checks count for: the label `service` of metrics.
    type Service: Clone + Ord + fmt::Debug + AsRef<str> + Send + Sync + 'static;

    /// The service that its checks count for.
    fn service(&self) -> &Self::Service;

    /// Its name within that.
    fn backend(&self) -> &str;
}

/// A name within a service.
impl<S, B> TargetId for (S, B)
where
    S: Clone + Ord + fmt::Debug + AsRef<str> + Send + Sync + 'static,
    B: Clone + Ord + fmt::Debug + AsRef<str> + Send + Sync + 'static,
{
    type Service = S;

    fn service(&self) -> &S {
        &self.0
    }

    fn backend(&self) -> &str {
        self.1.as_ref()
    }
}

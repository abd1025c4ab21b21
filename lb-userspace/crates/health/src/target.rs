//! What names a target.

use std::fmt;

/// Names a target. The library neither makes names nor reads them: whoever asks for checks has a type for them.
pub trait TargetId: Clone + Ord + fmt::Debug + Send + Sync + 'static {
    /// What its checks are counted under: the label `service` of metrics.
    type Service: Clone + Ord + fmt::Debug + AsRef<str> + Send + Sync + 'static;

    /// What its checks are counted under.
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

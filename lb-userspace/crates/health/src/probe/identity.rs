//! The certificate that a check shows when the server requests one, and whether the server did.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use rustls::{SignatureScheme, client::ResolvesClientCert, sign::CertifiedKey};

/// The certificate for one target.
#[derive(Debug)]
pub(super) struct Identity {
    shown: Option<Arc<CertifiedKey>>,
    asked: AtomicBool,
}

impl Identity {
    pub(super) fn new(shown: Option<Arc<CertifiedKey>>) -> Self {
        Self {
            shown,
            asked: AtomicBool::new(false),
        }
    }

    /// Whether there is a certificate to show.
    pub(super) fn is_set(&self) -> bool {
        self.shown.is_some()
    }

    /// A handshake begins.
    pub(super) fn begin(&self) {
        self.asked.store(false, Ordering::Relaxed);
    }

    /// Whether the server has requested a certificate since the handshake began.
    pub(super) fn was_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        self.shown.clone()
    }

    fn has_certs(&self) -> bool {
        // The question is of interest also where there is no answer.
        true
    }
}

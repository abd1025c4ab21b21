//! The XDP mode that the operator wants.

/// The XDP modes that may be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum XdpModeChoice {
    /// Native if the driver supports it, else generic with a warning.
    #[default]
    Auto,
    /// Only native.
    Native,
    /// Generic, in the kernel's network stack.
    Generic,
}

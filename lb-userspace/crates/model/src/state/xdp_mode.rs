//! Which XDP mode the operator wants.

/// Which XDP modes may be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum XdpModeChoice {
    /// Native where the driver takes it, else generic with a note that says why.
    #[default]
    Auto,
    /// Native or nothing.
    Native,
    /// Generic, in the kernel's network stack.
    Generic,
}

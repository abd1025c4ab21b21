//! Health checks: a library of its own that needs neither BPF nor root.

pub mod settings;

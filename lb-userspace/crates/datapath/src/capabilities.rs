//! The rights a data plane needs, checked before anything is touched, so that the error names what is missing.

use std::fs;

use crate::error::DatapathError;

/// Bits of capability sets, include/uapi/linux/capability.h.
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Checks the effective capabilities of this thread.
///
/// # Errors
/// [`DatapathError::Capabilities`] with the names of those missing.
pub(super) fn check() -> Result<(), DatapathError> {
    let status = fs::read_to_string("/proc/thread-self/status").map_err(|source| DatapathError::Io {
        what: "cannot read /proc/thread-self/status".to_owned(),
        source,
    })?;
    let missing = missing(&status);
    if missing.is_empty() {
        Ok(())
    } else {
        Err(DatapathError::Capabilities(missing))
    }
}

/// Names of the capabilities that a data plane needs and this thread lacks.
pub fn missing_capabilities() -> Vec<&'static str> {
    match check() {
        Err(DatapathError::Capabilities(missing)) => missing,
        // Without /proc nothing is known of them; `lb run` says so.
        Ok(()) | Err(_) => Vec::new(),
    }
}

/// Whether this thread may mount file systems; true where that is not known.
pub(super) fn may_mount() -> bool {
    let status = fs::read_to_string("/proc/thread-self/status");
    status.map_or(true, |status| effective(&status) & (1 << CAP_SYS_ADMIN) != 0)
}

/// The effective set in the text of a status file; empty where it has none.
fn effective(status: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .unwrap_or_default()
}

/// Names of the capabilities that the text of a status file lacks. CAP_SYS_ADMIN includes the two of BPF
/// (capabilities(7)).
fn missing(status: &str) -> Vec<&'static str> {
    let effective = effective(status);
    let has = |capability: u32| effective & (1 << capability) != 0;
    let mut missing = Vec::new();
    if !has(CAP_NET_ADMIN) {
        missing.push("CAP_NET_ADMIN");
    }
    if !has(CAP_BPF) && !has(CAP_SYS_ADMIN) {
        missing.push("CAP_BPF");
    }
    if !has(CAP_PERFMON) && !has(CAP_SYS_ADMIN) {
        missing.push("CAP_PERFMON");
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::missing;

    #[test]
    fn missing_rights_are_named_before_anything_is_tried() {
        for (bits, expected) in [
            ("000001ffffffffff", vec![]),
            (
                "0000000000000000",
                vec!["CAP_NET_ADMIN", "CAP_BPF", "CAP_PERFMON"],
            ),
            ("0000000000201000", vec![]),
            ("0000000000200000", vec!["CAP_NET_ADMIN"]),
            ("0000008000001000", vec!["CAP_PERFMON"]),
            ("000000c000001000", vec![]),
        ] {
            assert_eq!(
                missing(&format!("Name:\tlb\nCapEff:\t{bits}\n")),
                expected,
                "{bits}"
            );
        }
    }
}

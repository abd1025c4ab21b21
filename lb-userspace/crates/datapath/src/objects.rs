//! The programs and maps that the kernel has loaded, by any process: for support.

use std::io;

use aya::{maps::loaded_maps, programs::loaded_programs};

/// A line for each program and each map: what it is called, and how large it is.
///
/// # Errors
/// The kernel refuses, which it does without `CAP_SYS_ADMIN`.
pub fn kernel_objects() -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    for program in loaded_programs() {
        let program = program.map_err(io::Error::other)?;
        let instructions = program
            .verified_instruction_count()
            .map_or_else(String::new, |count| format!(", {count} instructions verified"));
        lines.push(format!(
            "program {} {}: tag {:016x}, {} bytes as machine code, {} bytes of memory{instructions}",
            program.id(),
            program.name_as_str().unwrap_or_default(),
            program.tag(),
            program.size_jitted(),
            program.memory_locked().unwrap_or_default(),
        ));
    }
    for map in loaded_maps() {
        let map = map.map_err(io::Error::other)?;
        let kind = map
            .map_type()
            .map_or_else(|_| "of a new type".to_owned(), |kind| format!("{kind:?}"));
        lines.push(format!(
            "map {} {}: {kind}, up to {} entries, keys of {} and values of {} bytes",
            map.id(),
            map.name_as_str().unwrap_or_default(),
            map.max_entries(),
            map.key_size(),
            map.value_size(),
        ));
    }
    Ok(lines)
}

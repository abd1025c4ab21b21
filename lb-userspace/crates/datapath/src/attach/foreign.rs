//! Finds the owner of a foreign XDP program on an interface, as far as the kernel reports it, for the error.

use std::fs;

use super::super::netlink::LinkState;
use crate::error::DatapathError;

/// The error for a program that is not ours.
pub(in super::super) fn foreign(link: &LinkState, program_id: u32) -> DatapathError {
    let name = aya::programs::loaded_programs()
        .filter_map(Result::ok)
        .find(|program| program.id() == program_id)
        .and_then(|program| program.name_as_str().map(str::to_owned))
        .filter(|name| !name.is_empty());
    DatapathError::ForeignProgram {
        interface: link.name.clone(),
        program_id,
        name,
        pid: link_holder(program_id),
    }
}

/// A process that holds a link with this program open, by the fdinfo of its descriptors. Only for an error
/// message, since it walks all processes.
fn link_holder(program_id: u32) -> Option<u32> {
    let processes = fs::read_dir("/proc").ok()?;
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != std::process::id())
        .find(|pid: &u32| {
            let descriptors = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten();
            descriptors
                .filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok())
                .any(|text| holds_link(&text, program_id))
        })
}

/// Whether the text of a descriptor's fdinfo describes an XDP link with this program.
fn holds_link(fdinfo: &str, program_id: u32) -> bool {
    let field = |name: &str| {
        fdinfo
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
    };
    field("link_type") == Some("xdp") && field("prog_id").and_then(|id| id.parse().ok()) == Some(program_id)
}

#[cfg(test)]
mod tests {
    use super::holds_link;

    #[test]
    fn the_process_that_holds_an_interface_is_found_by_its_link() {
        let text = "pos:\t0\nflags:\t02000000\nlink_type:\txdp\nlink_id:\t12\nprog_tag:\tab\nprog_id:\t70\nifindex:\t2\n";
        assert!(holds_link(text, 70));
        assert!(!holds_link(text, 7));
        assert!(!holds_link(&text.replace("xdp", "tcx"), 70));
    }
}

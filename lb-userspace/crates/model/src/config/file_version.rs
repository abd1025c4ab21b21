//! The form of a configuration file: `version` at its top.

use crate::{number, value_error::ValueError};

/// The form of a configuration file.
pub const FILE_VERSION: u32 = 1;

/// The form that a file says it has.
///
/// # Errors
/// This version of lb does not read that form.
pub fn file_version(text: &str) -> Result<u32, ValueError> {
    match number::decimal(text) {
        Some(FILE_VERSION) => Ok(FILE_VERSION),
        Some(later) if later > FILE_VERSION => Err(ValueError::new(
            format!("a file of version {later}, and this lb reads version {FILE_VERSION}"),
            format!(
                "update lb, or write the file by the keys of version {FILE_VERSION} (docs/configuration.md)"
            ),
        )),
        _ => Err(ValueError::new(
            format!("there is no version {text}"),
            format!("write version = {FILE_VERSION}"),
        )),
    }
}

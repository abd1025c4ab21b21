//! Files that a source includes.

/// Reads the files of a pattern, relative to the file that names it: names and texts, or why they cannot be read.
pub type Include<'a> = &'a dyn Fn(&str, &str) -> Result<Vec<(String, String)>, String>;

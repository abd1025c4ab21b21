//! Files that a source includes.

/// Files with their names, each read when it is asked for, or why it cannot be read: what is too much is not read to its end.
pub type Files<'a> = Box<dyn Iterator<Item = Result<(String, String), String>> + 'a>;

/// The files of a pattern, relative to the file that names it, or why there are none.
pub type Include<'a> = &'a dyn Fn(&str, &str) -> Result<Files<'a>, String>;

//! A finding: how bad it is, what it is about, and what to do.

use std::fmt;

use serde::Serialize;

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, but not for all packets or not at full speed; or it is not certain that it works.
    Warn,
    /// Packets are lost, or `lb run` would refuse to start.
    Fail,
}

/// A finding of one check.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// Name of the check, for programs.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// An interface, a service, a backend as `service/backend`, or `machine`.
    pub subject: String,
    /// What was found.
    pub message: String,
    /// Commands or changes that mend it, the best first; any of them is enough.
    #[serde(rename = "do")]
    pub remedies: Vec<String>,
}

impl Finding {
    /// A finding that is as it should be.
    pub(super) fn ok(check: &'static str, subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            check,
            level: Level::Ok,
            subject: subject.into(),
            message: message.into(),
            remedies: Vec::new(),
        }
    }

    /// A warning.
    pub(super) fn warn(check: &'static str, subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            level: Level::Warn,
            ..Self::ok(check, subject, message)
        }
    }

    /// A failure.
    pub(super) fn fail(check: &'static str, subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            level: Level::Fail,
            ..Self::ok(check, subject, message)
        }
    }

    /// The same with a remedy, behind those that it has.
    pub(super) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedies.push(remedy.into());
        self
    }
}

/// `FAIL  eth1: message`, and a line for the remedies.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Ok => "ok",
            Level::Warn => "WARN",
            Level::Fail => "FAIL",
        };
        writeln!(f, "{level:<6}{}: {}", self.subject, self.message)?;
        if self.remedies.is_empty() {
            return Ok(());
        }
        // Behind a comment nothing more can stand.
        let or = if self.remedies.iter().any(|remedy| remedy.contains(" # ")) {
            "\n      or: "
        } else {
            ", or "
        };
        writeln!(f, "      do: {}", self.remedies.join(or))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use regex::Regex;

    /// The text of all files of a directory.
    fn sources(dir: &Path) -> String {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let texts = entries.map(|path| {
            if path.is_dir() {
                sources(&path)
            } else {
                fs::read_to_string(path).unwrap()
            }
        });
        texts.collect()
    }

    #[test]
    fn every_check_is_documented_and_no_other() {
        let sources = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/doctor"));
        let document = include_str!("../../../docs/doctor.md");
        let used = Regex::new(r#"(?:Finding::(?:ok|warn|fail)|finding)\(\s*"([a-z_0-9]+)""#).unwrap();
        let mut count = 0;
        for name in used.captures_iter(&sources).map(|found| found[1].to_owned()) {
            count += 1;
            assert!(
                document.contains(&format!("| `{name}` |")),
                "{name} is not in docs/doctor.md"
            );
        }
        assert!(count > 40, "the pattern finds {count}");
        let rows = Regex::new(r"(?m)^\| `([a-z_0-9]+)` \| (?:FAIL|WARN|ok)").unwrap();
        for name in rows.captures_iter(document).map(|found| found[1].to_owned()) {
            assert!(sources.contains(&format!("\"{name}\"")), "{name} is no check");
        }
    }
}

//! `lb import`

use std::{
    fs, io,
    io::Read,
    net::IpAddr,
    path::{Path, PathBuf},
};

use clap::Args;
use lb_import::{Files, Imported, Kind, Source};
use serde::Serialize;

use super::{
    error::{CliError, Exit},
    output::{Context, remark},
};

/// Longest configuration that is read, in bytes, with each file that it includes.
const MAX_BYTES: u64 = 16 << 20;

/// Name of standard input in remarks.
const STDIN: &str = "standard input";

#[derive(Args, Debug)]
pub(super) struct Import {
    /// haproxy, keepalived or ipvs, and then the file; or the file alone
    #[arg(value_name = "KIND|FILE")]
    first: String,
    /// haproxy.cfg, keepalived.conf, or the output of `ipvsadm -Sn`; `-` reads standard input, as ipvs alone does
    #[arg(value_name = "FILE")]
    second: Option<String>,
    /// Whose configuration it is [default: by its content]
    #[arg(long, value_name = "KIND", value_parser = ["haproxy", "keepalived", "ipvs"])]
    from: Option<String>,
    /// Address of services that listen on every address of the machine (`bind *:80`), one for each family
    #[arg(long, value_name = "IP")]
    address: Vec<IpAddr>,
}

/// With `-o json`.
#[derive(Serialize)]
struct Report<'a> {
    toml: &'a str,
    services: usize,
    backends: usize,
    remarks: &'a [lb_import::Remark],
    notes: &'a [String],
}

impl Import {
    pub(super) fn execute(self, context: &Context) -> Result<(), CliError> {
        let (kind, file) = self.kind_and_file()?;
        let (name, text) = if file == "-" {
            (STDIN.to_owned(), read(io::stdin().lock(), STDIN)?)
        } else {
            let opened = fs::File::open(&file).map_err(|error| failed(format!("{file}: {error}")))?;
            (file.clone(), read(opened, &file)?)
        };
        let imported = lb_import::import(Source {
            name: &name,
            text: &text,
            kind,
            addresses: &self.address,
            include: &included,
        });
        let imported = imported.map_err(|error| {
            let failure = failed(error.to_string());
            match error.hint() {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
        })?;
        show(context, &name, &imported)
    }

    /// The kind, if one is named, and the file.
    fn kind_and_file(&self) -> Result<(Option<Kind>, String), CliError> {
        let named = self.from.as_deref().and_then(Kind::from_word);
        let usage = |what: String| CliError::new(Exit::Usage, what).hint("lb import haproxy FILE");
        let word = Kind::from_word(&self.first);
        match (&self.second, word) {
            (Some(_), Some(kind)) if named.is_some_and(|named| named != kind) => {
                Err(usage(format!("{} and --from name two kinds", self.first)))
            }
            (Some(file), Some(kind)) => Ok((Some(kind), file.clone())),
            (Some(_), None) => {
                let what = format!("{:?} is not haproxy, keepalived or ipvs", self.first);
                Err(usage(what))
            }
            (None, Some(kind)) if !Path::new(&self.first).exists() => match kind {
                // `ipvsadm -Sn | lb import ipvs`
                Kind::Ipvs => Ok((Some(kind), "-".to_owned())),
                Kind::Haproxy | Kind::Keepalived => Err(usage(format!("{} needs a file", self.first))),
            },
            (None, _) => Ok((named, self.first.clone())),
        }
    }
}

fn failed(what: String) -> CliError {
    CliError::new(Exit::Failed, what)
}

fn show(context: &Context, name: &str, imported: &Imported) -> Result<(), CliError> {
    let Imported {
        toml,
        services,
        backends,
        remarks,
        notes,
    } = imported;
    let report = Report {
        toml,
        services: *services,
        backends: *backends,
        remarks,
        notes,
    };
    context.show(&report, |report| report.toml.to_owned())?;
    remark(&format!("{name}: {}", imported.summary()));
    Ok(())
}

/// A text, or why it cannot be had.
fn read(from: impl Read, name: &str) -> Result<String, CliError> {
    text(from).map_err(|why| failed(format!("{name}: {why}")))
}

fn text(from: impl Read) -> Result<String, String> {
    let mut bytes = Vec::new();
    from.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("it is longer than {MAX_BYTES} bytes"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = error.as_bytes().iter().take(error.utf8_error().valid_up_to());
        let line = before.filter(|byte| **byte == b'\n').count() + 1;
        format!("line {line} is not UTF-8; iconv -f latin1 -t utf-8 may convert it")
    })
}

/// The files of an `include` line: names with `*` and `?` are patterns, and relative ones begin at the directory of the file that
/// has the line.
fn included<'a>(pattern: &str, from: &str) -> Result<Files<'a>, String> {
    let directory = if from == STDIN {
        None
    } else {
        Path::new(from).parent()
    };
    let whole = directory.unwrap_or(Path::new("")).join(pattern);
    let name = whole
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let mut files: Vec<PathBuf> = if name.contains(['*', '?']) {
        let directory = whole.parent().filter(|parent| !parent.as_os_str().is_empty());
        let listed = fs::read_dir(directory.unwrap_or(Path::new("."))).map_err(|error| error.to_string())?;
        let matches = |path: &PathBuf| {
            let file = path.file_name().and_then(|name| name.to_str());
            file.is_some_and(|file| fits(name.as_bytes(), file.as_bytes()))
        };
        listed
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(matches)
            .collect()
    } else {
        vec![whole]
    };
    if files.is_empty() {
        return Err("no file fits it".to_owned());
    }
    files.sort();
    let read = |path: PathBuf| {
        let content = fs::File::open(&path)
            .map_err(|error| error.to_string())
            .and_then(text);
        let content = content.map_err(|why| format!("{}: {why}", path.display()))?;
        Ok((path.display().to_string(), content))
    };
    Ok(Box::new(files.into_iter().map(read)))
}

/// Whether a name fits a pattern with `*` and `?`.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    // Where the latest `*` stands, and how much of the name it has taken.
    let (mut at, mut of, mut star) = (0, 0, None);
    while of < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, of));
                at += 1;
            }
            Some(c) if *c == b'?' || *c == name[of] => {
                at += 1;
                of += 1;
            }
            _ => match star {
                Some((place, taken)) => {
                    star = Some((place, taken + 1));
                    (at, of) = (place + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern.get(at..).unwrap_or_default().iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(words: &[&str]) -> Result<(Option<Kind>, String), CliError> {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            import: Import,
        }
        let words = ["import"].iter().chain(words);
        <Line as clap::Parser>::try_parse_from(words)
            .unwrap()
            .import
            .kind_and_file()
    }

    #[test]
    fn kind_and_file_are_named_in_several_ways() {
        for (words, kind, file) in [
            (&["haproxy", "a.cfg"][..], Some(Kind::Haproxy), "a.cfg"),
            (&["keepalived", "-"], Some(Kind::Keepalived), "-"),
            (&["ipvs"], Some(Kind::Ipvs), "-"),
            (&["ipvs", "rules"], Some(Kind::Ipvs), "rules"),
            (&["a.cfg"], None, "a.cfg"),
            (
                &["a.cfg", "--from", "keepalived"],
                Some(Kind::Keepalived),
                "a.cfg",
            ),
            (
                &["haproxy", "a.cfg", "--from", "haproxy"],
                Some(Kind::Haproxy),
                "a.cfg",
            ),
        ] {
            assert_eq!(chosen(words).unwrap(), (kind, file.to_owned()), "{words:?}");
        }
        for words in [
            &["haproxy"][..],
            &["nginx", "a.conf"],
            &["ipvs", "a", "--from", "haproxy"],
        ] {
            let error = chosen(words).unwrap_err();
            assert_eq!(error.exit, Exit::Usage, "{words:?}");
            assert!(error.hint.is_some());
        }
    }

    #[test]
    fn names_fit_patterns_as_in_a_shell() {
        for (pattern, name, is_fit) in [
            ("*.conf", "a.conf", true),
            ("*.conf", "a.cfg", false),
            ("a?c*", "abc", true),
            ("a?c*", "abcde", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b", false),
            ("*", "", true),
            ("?", "", false),
        ] {
            assert_eq!(
                fits(pattern.as_bytes(), name.as_bytes()),
                is_fit,
                "{pattern} {name}"
            );
        }
    }

    #[test]
    fn includes_are_files_beside_the_one_that_names_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        fs::create_dir(dir.path().join("conf.d")).unwrap();
        for (name, text) in [("conf.d/b.conf", "b"), ("conf.d/a.conf", "a"), ("conf.d/c", "c")] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        fs::write(dir.path().join("conf.d/latin"), b"one\n\xe9").unwrap();
        let main = path("keepalived.conf");
        let included = |pattern: &str, from: &str| -> Result<Vec<_>, String> {
            super::included(pattern, from)?.collect()
        };
        let found = included("conf.d/*.conf", &main).unwrap();
        assert_eq!(
            found,
            [
                (path("conf.d/a.conf"), "a".to_owned()),
                (path("conf.d/b.conf"), "b".to_owned())
            ]
        );
        assert_eq!(included("c", &path("conf.d/a.conf")).unwrap()[0].1, "c");
        for (pattern, why) in [
            ("*.none", "no file fits"),
            ("none", "No such file"),
            ("conf.d/latin", "line 2 is not UTF-8"),
        ] {
            let error = included(pattern, &main).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn what_has_no_end_is_not_read() {
        let endless = text(io::repeat(b'a')).unwrap_err();
        assert!(endless.contains("longer than"), "{endless}");
    }
}

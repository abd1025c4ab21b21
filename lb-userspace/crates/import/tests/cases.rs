//! Configurations as people write them, each with the file that it becomes: `cases/KIND/NAME` and `NAME.toml`, or `NAME.error`
//! where nothing comes of it. `cargo xtask docs` writes these files anew, for reading the difference.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use std::{
    collections::BTreeSet,
    env, fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use lb_import::{ImportError, Imported, Kind, Source, import};
use lb_model::config;

/// Fewest cases of a kind.
const FEWEST: usize = 20;
const KINDS: [(&str, Kind, &str); 3] = [
    ("haproxy", Kind::Haproxy, "cfg"),
    ("keepalived", Kind::Keepalived, "conf"),
    ("ipvs", Kind::Ipvs, "rules"),
];

struct Case {
    dir: PathBuf,
    name: String,
    kind: Kind,
    text: String,
    /// Where its result stands, without the extension.
    golden: PathBuf,
}

impl Case {
    /// Imports `text`, with the options of the first line: `# lb-import: --address 192.0.2.1`.
    fn import(&self, text: &str) -> Result<Imported, ImportError> {
        let options = self.text.lines().next().unwrap_or_default();
        let options = options.strip_prefix("# lb-import: ").unwrap_or_default();
        let addresses: Vec<IpAddr> = options
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        import(Source {
            name: &self.name,
            text,
            kind: Some(self.kind),
            addresses: &addresses,
            include: &|pattern, _| {
                let text = fs::read_to_string(self.dir.join(pattern)).map_err(|error| error.to_string())?;
                Ok(Box::new([Ok((pattern.to_owned(), text))].into_iter()))
            },
        })
    }
}

fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut cases = Vec::new();
    for (folder, kind, extension) in KINDS {
        let dir = root.join(folder);
        let mut files: Vec<PathBuf> = fs::read_dir(&dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|found| found == extension))
            .collect();
        files.sort();
        assert!(files.len() >= FEWEST, "{folder}: {}", files.len());
        cases.extend(files.into_iter().map(|path| Case {
            dir: dir.clone(),
            name: path.file_name().unwrap().to_str().unwrap().to_owned(),
            kind,
            text: fs::read_to_string(&path).unwrap(),
            golden: path.with_extension(""),
        }));
    }
    cases
}

fn accepted(name: &str, toml: &str) -> config::Config {
    config::parse(toml, name).unwrap_or_else(|errors| {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        panic!("{name}\n{}\n{toml}", errors.join("\n"))
    })
}

#[test]
fn each_configuration_becomes_the_file_beside_it() {
    let mut wrong = Vec::new();
    for case in cases() {
        let (extension, other, found) = match case.import(&case.text) {
            Ok(imported) => ("toml", "error", imported.toml),
            Err(error) => {
                let hint = error.hint().map(|hint| format!("hint: {hint}\n"));
                ("error", "toml", format!("{error}\n{}", hint.unwrap_or_default()))
            }
        };
        let golden = case.golden.with_extension(extension);
        if env::var_os("LB_WRITE_DOCS").is_some() {
            fs::write(&golden, &found).unwrap();
            let _ = fs::remove_file(case.golden.with_extension(other));
        }
        if fs::read_to_string(&golden).ok().as_ref() != Some(&found) {
            wrong.push(format!("{}\n{found}", golden.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_file_is_accepted_with_all_services_and_backends() {
    for case in cases() {
        let Ok(imported) = case.import(&case.text) else {
            continue;
        };
        let config = accepted(&case.name, &imported.toml);
        let services = config.desired.services.values();
        let backends = services.map(|service| service.backends.len() + service.hosts.len());
        assert_eq!(backends.sum::<usize>(), imported.backends, "{}", case.name);
        assert_eq!(config.desired.services.len(), imported.services, "{}", case.name);
    }
}

/// Lines that say what `lb` does anyway, or what another line says, too: the file is the same without them. The name of a case where
/// only its line is meant.
const DEFAULTS: [&str; 15] = [
    "balance random",
    "delay_loop 2",
    "global",
    "inhibit_on_failure",
    "lb_algo rr",
    "lb_algo wrr",
    "lb_kind NAT",
    "mode tcp",
    "retry 2",
    "routing-only.cfg: mode http",
    "sh-fallback",
    "status_code 200-299",
    "tcp-check connect",
    "timeout connect ",
    "weight 1",
];

#[test]
fn each_line_changes_the_file_or_is_named_in_it() {
    let mut silent = BTreeSet::new();
    let mut unused: BTreeSet<&str> = DEFAULTS.into();
    for case in cases() {
        let Ok(imported) = case.import(&case.text) else {
            continue;
        };
        let named: BTreeSet<usize> = imported
            .remarks
            .iter()
            .filter(|remark| remark.file == case.name)
            .map(|remark| remark.line)
            .collect();
        for (index, line) in case.text.lines().enumerate() {
            let trimmed = line.trim();
            let is_empty = trimmed.is_empty() || trimmed.starts_with(['#', '!']) || "{}".contains(trimmed);
            if is_empty {
                continue;
            }
            if named.contains(&(index + 1)) {
                let place = format!("# {}:{}: ", case.name, index + 1);
                assert!(imported.toml.contains(&place), "{place}");
                continue;
            }
            let without: Vec<&str> = case
                .text
                .lines()
                .enumerate()
                .map(|(number, line)| if number == index { "" } else { line })
                .collect();
            let is_silent = case
                .import(&without.join("\n"))
                .is_ok_and(|other| other.toml == imported.toml);
            if !is_silent {
                continue;
            }
            let of_case = format!("{}: {trimmed}", case.name);
            match DEFAULTS
                .iter()
                .find(|default| trimmed.starts_with(**default) || of_case == **default)
            {
                Some(default) => {
                    unused.remove(default);
                }
                None => {
                    silent.insert(format!("{}:{}: {trimmed}", case.name, index + 1));
                }
            }
        }
    }
    assert!(silent.is_empty(), "{silent:#?}");
    assert!(unused.is_empty(), "{unused:#?}");
}

/// Inputs tried of each case: pieces of it, repeated, left out, exchanged and broken.
const TRIES: usize = 60;

#[test]
fn broken_input_is_an_error_or_an_accepted_file() {
    let mut random = fastrand::Rng::with_seed(11);
    let cases = cases();
    let lines: Vec<&str> = cases.iter().flat_map(|case| case.text.lines()).collect();
    for case in &cases {
        for _ in 0..TRIES {
            let mut text: Vec<String> = case.text.lines().map(str::to_owned).collect();
            for _ in 0..random.usize(1..6) {
                let at = random.usize(0..text.len().max(1));
                let Some(line) = text.get_mut(at) else { continue };
                match random.u8(0..7) {
                    0 => {
                        text.remove(at);
                    }
                    1 => {
                        let copy = line.clone();
                        text.insert(random.usize(0..text.len()), copy);
                    }
                    2 => {
                        let foreign = lines[random.usize(0..lines.len())];
                        text.insert(at, foreign.to_owned());
                    }
                    3 => {
                        let mut words: Vec<&str> = line.split(' ').collect();
                        random.shuffle(&mut words);
                        *line = words.join(" ");
                    }
                    4 => {
                        let cut = line
                            .char_indices()
                            .nth(random.usize(0..20))
                            .map_or(0, |(at, _)| at);
                        line.truncate(cut);
                    }
                    5 => {
                        let strange = [
                            "\0",
                            "\u{7f}",
                            "\"",
                            "{",
                            "}",
                            "\\",
                            "é",
                            "\u{1b}[2J",
                            "99999999999",
                            "-1",
                            "$X",
                            "\r",
                        ];
                        line.push_str(strange[random.usize(0..strange.len())]);
                    }
                    _ => {
                        let digits = random.u32(..).to_string();
                        *line = line.replacen(|c: char| c.is_ascii_digit(), &digits, 1);
                    }
                }
            }
            let text = text.join("\n");
            if let Ok(imported) = case.import(&text) {
                accepted(&case.name, &imported.toml);
            }
        }
    }
}

/// Variables and files that are named again and again make no source that takes memory without end.
#[test]
fn a_small_source_that_becomes_large_is_refused() {
    let words = "a ".repeat(30_000);
    let lines = "$V\n".repeat(100);
    for (text, file) in [
        (format!("$V={words}\n{lines}"), String::new()),
        ("include f\n".repeat(100), words),
    ] {
        let error = import(Source {
            name: "small",
            text: &text,
            kind: Some(Kind::Keepalived),
            addresses: &[],
            include: &|_, _| Ok(Box::new([Ok(("f".to_owned(), file.clone()))].into_iter())),
        });
        let error = error.unwrap_err().to_string();
        assert!(error.contains("is longer than"), "{error}");
    }
}

/// Lines of a large source.
const MANY: usize = 5_000;

/// With work for each pair of lines these would not end.
#[test]
fn large_sources_end() {
    let low = |number: usize| u8::try_from(number % 256).unwrap();
    let high = |number: usize| low(number / 256);
    let address = |number: usize| IpAddr::from([10, 1, high(number), low(number)]);
    let repeat = |line: &dyn Fn(usize) -> String| (0..MANY).map(line).collect::<String>();
    let front = "listen a\n bind 192.0.2.1:80\n";
    let texts = [
        (
            Kind::Haproxy,
            format!(
                "{front}{}",
                repeat(&|n| format!(" server s {}:80 check backup\n", address(n)))
            ),
        ),
        (
            Kind::Haproxy,
            format!(
                "{front}{} server s 10.0.0.1:80\n",
                repeat(&|_| " server s [2001:db8::1]:80\n".into())
            ),
        ),
        (
            Kind::Haproxy,
            format!(
                "listen a\n server s 10.0.0.1:80\n{}",
                repeat(&|n| format!(" bind {}:{}-{}\n", address(n / 1000), n, n + 40_000))
            ),
        ),
        (
            Kind::Haproxy,
            format!(
                "{front} server s 10.0.0.1:80\n tcp-request connection reject if !{{ src 10.0.0.0/8 }}\n{}",
                repeat(&|n| format!(" acl a src {}\n tcp-request connection reject if a\n", address(n)))
            ),
        ),
        (
            Kind::Haproxy,
            format!(
                "{}backend b\n{}",
                repeat(&|n| format!("frontend f\n bind {}:80\n default_backend b\n", address(n))),
                repeat(&|_| " server s [2001:db8::1]:80\n".into())
            ),
        ),
        (
            Kind::Keepalived,
            format!(
                "virtual_server_group g {{\n{}}}\nvirtual_server group g {{\n{}}}\n",
                repeat(&|n| format!("{} 80\n", address(n))),
                repeat(&|n| format!("real_server {} 80 {{\nTCP_CHECK {{\n}}\n}}\n", address(n)))
            ),
        ),
        (
            Kind::Haproxy,
            format!(
                "defaults\n{}{}",
                repeat(&|_| " tcp-check expect string a\n".into()),
                repeat(&|n| format!("listen a\n bind {}:80\n server s 10.0.0.1:80 check\n", address(n)))
            ),
        ),
        (
            Kind::Keepalived,
            format!(
                "virtual_server_group g {{\n192.0.0.0-192.0.255.255 80\n}}\n{}",
                repeat(&|_| "virtual_server group g {\nprotocol TCP\n}\n".into())
            ),
        ),
        (
            Kind::Ipvs,
            format!(
                "-A -t 192.0.2.1:80\n{}",
                repeat(&|n| format!("-a -t 192.0.2.1:80 -r {}:80 -m\n", address(n)))
            ),
        ),
        (
            Kind::Ipvs,
            repeat(&|n| {
                let service = format!("-t {}:80", address(n));
                format!("-A {service}\n-a {service} -r 10.0.0.1:80 -m\n")
            }),
        ),
    ];
    for (kind, text) in texts {
        let imported = import(Source {
            name: "large",
            text: &text,
            kind: Some(kind),
            addresses: &[],
            include: &|_, _| Err("none".to_owned()),
        });
        if let Ok(imported) = imported {
            accepted("large", &imported.toml);
        }
    }
}

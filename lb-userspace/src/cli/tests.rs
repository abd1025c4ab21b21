use clap::{CommandFactory, Parser, error::ErrorKind};

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_definition_of_the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_of_the_interface_parses() {
    for line in [
        "lb run --iface eth0 --iface eth1 --xdp-mode generic --state-dir /s --metrics 127.0.0.1:1 --pin-dir /p",
        "lb run --config f.toml --on-exit keep --reset --socket /s",
        "lb check-config f.toml",
        "lb apply f.toml --dry-run --wait --revision 7",
        "lb export",
        "lb status -o json --watch",
        "lb status --watch=250ms --no-headers",
        "lb status -o yaml --color always --down --sort -packets",
        "lb service list -o name --selector mode=nat,state!=ok",
        "lb backend list web --down --selector health=down --sort -flows,name",
        "lb --socket /s -o wide service list",
        "lb service show web",
        "lb service add web --address 192.0.2.10 --port 80 --protocol tcp --mode nat --check http --check-path /health",
        "lb service add web --address 2001:db8::1 --port 0 --ring-size 65521",
        "lb service set web --on-empty all",
        "lb service remove web",
        "lb backend list",
        "lb backend list web --watch",
        "lb backend add web web-1 --address 10.0.0.11:8080 --weight 100",
        "lb backend add web web-1 --address 10.0.0.11",
        "lb service add web --address 192.0.2.10 --ports 80,443,8000-8100",
        "lb backend add web web-1 --address [2001:db8::11]:8080",
        "lb backend set web web-1 --weight 0",
        "lb backend drain web web-1 --deadline 5m --wait",
        "lb backend disable web web-1",
        "lb backend enable web web-1",
        "lb backend report web web-1 up --ttl 10s",
        "lb backend report web web-1 down --detail disk-full",
        "lb backend remove web web-1 --now",
        "lb events --follow --since 10m -o json",
        "lb flows list --service web --backend web-1 --client 198.51.100.0/24 --state established --sort age --limit 10",
        "lb flows count --by client --limit 10 -o json --watch",
        "lb flows flush --client 2001:db8::7 --dry-run",
        "lb flows flush --all --yes",
        "lb detach --pin-dir /p",
        "lb completions bash",
        "lb man /usr/share/man/man1",
    ] {
        if let Err(error) = parse(line) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn wrong_usage_is_exit_2() {
    for (line, kind) in [
        ("lb nonsense", ErrorKind::InvalidSubcommand),
        ("lb service add web --port 80", ErrorKind::MissingRequiredArgument),
        (
            "lb service add we/b --address 192.0.2.1 --port 80",
            ErrorKind::ValueValidation,
        ),
        (
            "lb service add web --address 192.0.2.1 --port 65536",
            ErrorKind::ValueValidation,
        ),
        (
            "lb service add web --address example.com --port 80",
            ErrorKind::ValueValidation,
        ),
        (
            "lb backend add web a --address 10.0.0",
            ErrorKind::ValueValidation,
        ),
        (
            "lb service add web --address 192.0.2.10",
            ErrorKind::MissingRequiredArgument,
        ),
        (
            "lb service add web --address 192.0.2.10 --port 80 --ports 443",
            ErrorKind::ArgumentConflict,
        ),
        ("lb backend set web a --weight -1", ErrorKind::UnknownArgument),
        (
            "lb backend drain web a --deadline soon",
            ErrorKind::ValueValidation,
        ),
        ("lb run --xdp-mode fast", ErrorKind::ValueValidation),
        ("lb run --on-exit explode", ErrorKind::ValueValidation),
        ("lb status -o xml", ErrorKind::InvalidValue),
        ("lb status --color sometimes", ErrorKind::InvalidValue),
        ("lb flows list --sort bytes", ErrorKind::ValueValidation),
        ("lb flows list --state new", ErrorKind::ValueValidation),
        ("lb flows count --by port", ErrorKind::ValueValidation),
        ("lb flows list --client 10.0.0.1/8", ErrorKind::ValueValidation),
    ] {
        let error = parse(line).expect_err(line);
        assert_eq!(error.kind(), kind, "{line}");
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[test]
fn backend_set_without_options_is_refused() {
    let error = parse("lb --socket /nowhere backend set web a")
        .unwrap()
        .execute()
        .unwrap_err();
    assert_eq!(error.exit, error::Exit::Usage);
}

#[test]
fn names_alone_are_refused_before_anything_is_changed() {
    for command in [
        "backend drain web a",
        "service add web --address 192.0.2.1 --port 80",
        "events",
    ] {
        let line = format!("lb --socket /nowhere -o name {command}");
        let error = parse(&line).unwrap().execute().unwrap_err();
        assert_eq!(error.exit, error::Exit::Usage, "{command}");
    }
}

#[test]
fn an_unknown_field_is_wrong_usage_before_the_daemon_is_asked() {
    for command in [
        "status --sort x",
        "service list --selector x=1",
        "backend list --sort -x",
        "backend list web --sort x",
    ] {
        let error = parse(&format!("lb --socket /nowhere {command}"));
        let error = error.unwrap().execute().unwrap_err();
        assert_eq!(error.exit, error::Exit::Usage, "{command}");
    }
}

#[test]
fn without_a_daemon_clients_end_with_exit_5() {
    for command in [
        "status",
        "service list",
        "backend list",
        "export",
        "events",
        "flows list",
        "flows count",
        "flows flush --all --yes",
        "service remove web",
    ] {
        let error = parse(&format!("lb --socket /nowhere/lb.sock {command}"))
            .unwrap()
            .execute()
            .unwrap_err();
        assert_eq!(error.exit, error::Exit::Unreachable, "{command}");
    }
}

#[test]
fn run_without_an_interface_explains_how_to_name_one() {
    let error = parse("lb run").unwrap().execute().unwrap_err();
    assert_eq!(error.exit, error::Exit::Failed);
    assert!(error.to_string().contains("--iface"), "{error}");
}

#[test]
fn check_config_lists_every_error_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lb.toml");
    std::fs::write(&file, "[lb]\nmetrics = 7\nnonsense = 1\n").unwrap();
    let line = format!("lb check-config {}", file.display());
    let error = parse(&line).unwrap().execute().unwrap_err();
    assert_eq!(error.exit, error::Exit::Failed);
    let text = error.to_string();
    for place in ["lb.toml:2:", "lb.toml:3:"] {
        assert!(text.contains(place), "{text}");
    }
    std::fs::write(&file, "").unwrap();
    parse(&line).unwrap().execute().unwrap();
}

/// Long options of a command with this prefix, in order.
pub(super) fn option_names(command: &[&str], prefix: &str) -> Vec<String> {
    let mut found = Cli::command();
    for name in command {
        found = found.find_subcommand(name).unwrap().clone();
    }
    let names = found.get_arguments().filter_map(clap::Arg::get_long);
    let mut names: Vec<String> = names
        .filter(|name| name.starts_with(prefix))
        .map(str::to_owned)
        .collect();
    names.sort();
    names
}

/// Code spans and indented lines of documents that are commands of `lb`, without placeholders that no value can stand for.
fn commands_in(text: &str) -> Vec<String> {
    let spans = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    let is_code = |line: &&str| {
        line.starts_with("    ") || line.starts_with("$ ") || line.starts_with("lb ") && line.contains(" --")
    };
    let lines = text
        .lines()
        .filter(is_code)
        .map(|line| line.trim().trim_start_matches("$ "));
    spans
        .chain(lines)
        .filter(|line| line.starts_with("lb "))
        .map(|line| {
            let end = line.find(['|', '>', '#', '…', '&', '<']).unwrap_or(line.len());
            line.get(..end).unwrap_or_default().trim().to_owned()
        })
        .collect()
}

/// A command that is named without its values is fine: what must be right are commands, options and words.
#[test]
fn documents_name_commands_and_options_that_exist() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = vec![root.join("README.md"), root.join("dist/INSTALL.md")];
    for dir in ["docs", "contrib/ansible"] {
        files.extend(
            std::fs::read_dir(root.join(dir))
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.extension().is_some_and(|extension| extension == "md")),
        );
    }
    let mut wrong = Vec::new();
    let mut seen = 0;
    for file in files {
        for line in commands_in(&std::fs::read_to_string(&file).unwrap()) {
            seen += 1;
            let Err(error) = parse(&line) else { continue };
            let is_wrong = matches!(
                error.kind(),
                ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand | ErrorKind::ArgumentConflict
            );
            if is_wrong {
                wrong.push(format!("{}: {line}: {error}", file.display()));
            }
        }
    }
    assert!(seen > 100, "{seen}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

//! A configuration of several files, and the version of a file.

use super::super::*;
use crate::state::desired::Desired;

const WEB: &str = "[[service]]\nname = \"web\"\naddress = \"192.0.2.1\"\nport = 80\n";
const API: &str = "[[service]]\nname = \"api\"\naddress = \"192.0.2.2\"\nport = 80\n";

fn read(files: &[(&str, &str)]) -> Result<Config, Vec<ConfigError>> {
    let sources: Vec<_> = files.iter().map(|(file, text)| Source { file, text }).collect();
    parse_all(&sources, &Desired::default())
}

/// The errors as `FILE:LINE message (hint)`.
fn errors(files: &[(&str, &str)]) -> Vec<String> {
    let errors = read(files).unwrap_err().into_iter();
    let line = |error: ConfigError| {
        let hint = error.hint.unwrap_or_default();
        format!("{}:{} {} ({hint})", error.file, error.line, error.message)
    };
    errors.map(line).collect()
}

#[test]
fn several_files_mean_what_one_with_all_of_it_means() {
    let lb = "version = 1\n[lb]\ntransition = \"7s\"\n";
    let one = parse(&format!("{lb}{WEB}{API}"), "one").unwrap();
    let api = format!("version = 1\n{API}");
    assert_eq!(read(&[("a", lb), ("b", WEB), ("c", &api)]).unwrap(), one);
    assert_eq!(read(&[("b", WEB), ("c", API), ("a", lb)]).unwrap(), one);
    assert_eq!(read(&[]).unwrap(), Config::default());
}

/// With a hundred files, an error without the file's name does not help.
#[test]
fn errors_of_several_files_name_the_file_and_both_places() {
    let lb = "\n[lb]\n";
    for (files, expected) in [
        (
            &[("a", WEB), ("b", "# more\n\n"), ("c", WEB)][..],
            vec!["c:2 service web is defined twice (the first one is on line 2 of a; rename one of them)"],
        ),
        (
            &[("a", &*format!("{WEB}{WEB}"))][..],
            vec!["a:6 service web is defined twice (the first one is on line 2; rename one of them)"],
        ),
        (
            &[("a", lb), ("b", lb)],
            vec!["b:2 [lb] stands in two files (the first one is on line 2 of a; join them there)"],
        ),
        (
            &[("a", "x = 1\n"), ("b", "[lb]\ny = 1\n")],
            vec![
                "a:1 unknown key x in the file (the file has: version, lb, service)",
                "b:2 unknown key y in [lb] (",
            ],
        ),
        (&[("a", WEB), ("b", "[[")], vec!["b:1 "]),
        // Constraints between values hold across files.
        (
            &[("a", WEB), ("b", &*WEB.replace("\"web\"", "\"www\""))],
            vec!["b:3 "],
        ),
    ] {
        let found = errors(files);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}");
        }
    }
}

#[test]
fn a_file_of_another_version_names_the_remedy_and_nothing_else() {
    for (text, expected) in [
        (
            "version = 2\nnew = 1\n",
            "f:1 version: a file of version 2, and this lb reads version 1 (update lb",
        ),
        (
            "version = 0\n",
            "f:1 version: there is no version 0 (write version = 1)",
        ),
        (
            "version = \"1\"\n",
            "f:1 version: expected an integer, found a string (write 1 without quotes)",
        ),
    ] {
        let found = errors(&[("f", text)]);
        assert!(found.len() == 1 && found[0].starts_with(expected), "{found:?}");
    }
    assert_eq!(parse("version = 1\n", "f").unwrap(), parse("", "f").unwrap());
}

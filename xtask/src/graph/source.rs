//! The modules that a file's text declares, and the paths that it names; without comments, literals and unit tests.

use std::collections::BTreeMap;

/// Modules by their names from the crate's root.
pub(super) type Modules = BTreeMap<Vec<String>, Source>;

/// The tokens that begin an item; a comma does not end one.
const ITEMS: [&str; 11] = [
    "const", "enum", "extern", "fn", "impl", "mod", "static", "struct", "trait", "type", "use",
];

/// A path: where it starts, and the names that lead on from there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Path {
    /// The module that it starts from, by its names from the crate's root.
    pub(super) from: Vec<String>,
    /// Whether it starts with a name that an import or a module declaration must explain.
    pub(super) is_relative: bool,
    /// The names.
    pub(super) names: Vec<String>,
}

/// An import.
#[derive(Debug)]
pub(super) struct Import {
    /// The name that it brings into the module, `*` for all that there are.
    pub(super) name: String,
    /// The path that it leads to.
    pub(super) path: Path,
}

/// The parts of a module that its use of other modules shows in.
#[derive(Debug, Default)]
pub(super) struct Source {
    /// Modules below it that have files of their own, by their names from the crate's root.
    pub(super) files: Vec<Vec<String>>,
    /// Its imports.
    pub(super) imports: Vec<Import>,
    /// Paths in its code.
    pub(super) paths: Vec<Path>,
}

/// Reads the text of a module's file: the module, and those with their text in braces.
pub(super) fn read(module: &[String], text: &str) -> Modules {
    let tokens = without_tests(&tokens(text));
    let mut modules = Modules::from([(module.to_vec(), Source::default())]);
    // The modules around this place, with the depth of their braces.
    let mut around = vec![(module.to_vec(), 0)];
    let (mut at, mut depth) = (0, 0);
    while let Some(token) = tokens.get(at) {
        let here = around.last().map_or(module, |(module, _)| module);
        let source = modules.entry(here.to_vec()).or_default();
        let next = tokens.get(at + 1).copied().unwrap_or_default();
        let before = at.checked_sub(1).and_then(|before| tokens.get(before)).copied();
        match *token {
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                around.retain(|(_, outside)| *outside <= depth);
            }
            "use" if next != "<" => {
                at = source.import(here, &[], &tokens, at + 1);
                continue;
            }
            "mod" if is_name(next) => {
                let module = [here, &[next.to_owned()]].concat();
                match tokens.get(at + 2) {
                    Some(&";") => source.files.push(module),
                    // Its brace is still to come.
                    Some(&"{") => around.push((module, depth + 1)),
                    Some(_) | None => {}
                }
                at += 1;
            }
            name if is_name(name) && next == "::" && !matches!(before, Some("::" | ".")) => {
                let is_macro_argument = before == Some("$") && name != "crate";
                let is_visibility = tokens[..at].ends_with(&["pub", "(", "in"]);
                let mut names = vec![name.to_owned()];
                while let ["::", next, ..] = &tokens[at + 1..]
                    && is_name(next)
                {
                    names.push((*next).to_owned());
                    at += 2;
                }
                if !is_macro_argument && !is_visibility {
                    source.paths.push(Path::new(here, &names));
                }
            }
            _ => {}
        }
        at += 1;
    }
    modules
}

impl Source {
    /// Reads the tree of an import behind a prefix, and gives the place after it.
    fn import(&mut self, here: &[String], prefix: &[String], tokens: &[&str], mut at: usize) -> usize {
        let mut names = prefix.to_vec();
        while let Some(token) = tokens.get(at) {
            match *token {
                "::" => at += 1,
                "{" => {
                    at += 1;
                    while let Some(token) = tokens.get(at).filter(|token| **token != "}") {
                        at = match *token {
                            "," => at + 1,
                            _ => self.import(here, &names, tokens, at),
                        };
                    }
                    return at + 1;
                }
                "*" => {
                    self.add_import(here, "*", &names);
                    return at + 1;
                }
                name if is_name(name) => {
                    if name != "self" || names.is_empty() {
                        names.push(name.to_owned());
                    }
                    at += 1;
                    match tokens.get(at) {
                        Some(&"::") => {}
                        Some(&"as") => {
                            let name = tokens.get(at + 1).copied().unwrap_or_default();
                            self.add_import(here, name, &names);
                            return at + 2;
                        }
                        Some(_) | None => {
                            let name = names.last().cloned().unwrap_or_default();
                            self.add_import(here, &name, &names);
                            return at;
                        }
                    }
                }
                _ => return at + 1,
            }
        }
        at
    }

    fn add_import(&mut self, here: &[String], name: &str, names: &[String]) {
        let (name, path) = (name.to_owned(), Path::new(here, names));
        self.imports.push(Import { name, path });
    }
}

impl Path {
    /// A path in the text of a module.
    fn new(here: &[String], names: &[String]) -> Self {
        let (mut from, mut is_relative, mut read) = (here.to_vec(), true, 0);
        for name in names {
            match name.as_str() {
                "crate" => from.clear(),
                "self" => {}
                "super" => {
                    from.pop();
                }
                _ => break,
            }
            is_relative = false;
            read += 1;
        }
        let names = names.get(read..).unwrap_or_default().to_vec();
        Self {
            from,
            is_relative,
            names,
        }
    }
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Names, `::`, and other characters one by one.
fn tokens(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if first == '"' {
            string(rest)
        } else if let Some(length) = raw_string(rest) {
            length
        } else if let Some(quoted) = rest.strip_prefix('\'') {
            1 + character(quoted)
        } else if is_word(first) {
            rest.find(|c| !is_word(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (token, after) = rest.split_at(length);
        let is_code = !first.is_whitespace() && !token.starts_with("//") && !token.starts_with("/*");
        if is_code && !token.contains(['"', '\'']) {
            found.push(token);
        }
        rest = after;
    }
    found
}

/// The length of a string literal.
fn string(text: &str) -> usize {
    let mut escaped = true;
    for (at, c) in text.char_indices() {
        match c {
            '"' if !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

/// The length of a raw string literal, if it is one.
fn raw_string(text: &str) -> Option<usize> {
    let start = ["r", "br", "cr"]
        .into_iter()
        .find_map(|start| text.strip_prefix(start))?;
    let quoted = start.trim_start_matches('#');
    let end = format!("\"{}", "#".repeat(start.len() - quoted.len()));
    let close = quoted.strip_prefix('"')?.find(&end)?;
    Some(text.len() - quoted.len() + 1 + close + end.len())
}

/// The length of a character or lifetime, after its quotation mark.
fn character(text: &str) -> usize {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some('\\'), Some(escaped)) => {
            let start = 1 + escaped.len_utf8();
            text[start..].find('\'').map_or(text.len(), |end| start + end + 1)
        }
        (Some(c), Some('\'')) => c.len_utf8() + 1,
        _ => text
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(text.len()),
    }
}

/// The tokens without what is compiled for unit tests alone.
fn without_tests<'a>(tokens: &[&'a str]) -> Vec<&'a str> {
    let mut kept = Vec::new();
    let mut rest = tokens;
    while let Some((token, after)) = rest.split_first() {
        rest = match rest.strip_prefix(["#", "[", "cfg", "(", "test", ")", "]"].as_slice()) {
            Some(item) => &item[item_length(item)..],
            None => {
                kept.push(*token);
                after
            }
        };
    }
    kept
}

/// The number of tokens of an item, a field or a statement.
fn item_length(tokens: &[&str]) -> usize {
    let mut depth = 0;
    let mut is_item = false;
    for (at, token) in tokens.iter().enumerate() {
        match *token {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" if depth == 0 => return at,
            "}" if depth == 1 => return at + 1,
            "}" | ")" | "]" => depth -= 1,
            ";" if depth == 0 => return at + 1,
            "," if depth == 0 && !is_item => return at + 1,
            token if depth == 0 => is_item |= ITEMS.contains(&token),
            _ => {}
        }
    }
    tokens.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Source {
        let module = ["m", "n"].map(str::to_owned);
        super::read(&module, text).remove(&module[..]).unwrap()
    }

    fn texts<'a>(paths: impl Iterator<Item = &'a Path>) -> Vec<String> {
        let text = |path: &Path| {
            let from = if path.is_relative { &[] } else { &path.from[..] };
            [from, &path.names].concat().join("::")
        };
        paths.map(text).collect()
    }

    #[test]
    fn imports_are_read_from_nested_braces() {
        let source = read(
            "pub(crate) use crate::{\n    a::{self, b::C as D},\n    d::*,\n};\nuse super::super::e::F; // use crate::no;",
        );
        let names: Vec<&str> = source.imports.iter().map(|import| import.name.as_str()).collect();
        assert_eq!(names, ["a", "D", "*", "F"]);
        let paths = texts(source.imports.iter().map(|import| &import.path));
        assert_eq!(paths, ["a", "a::b::C", "d", "e::F"]);
    }

    #[test]
    fn paths_are_read_from_code_alone() {
        let source = read(
            r##"
            /// See crate::documented::Y.
            fn f<'a>(x: &'a super::p::X) -> impl Z + use<'a> {
                let s = ("crate::text::a", r#"crate::"text"::b"#, '"', '\'', "\"crate::text::c");
                crate::g::h::<u8>(); child::go(s); x.crate_::no();
                $crate::mac::m!(); $family::no();
                struct S { pub(in crate::visible) field: u8 }
            }"##,
        );
        assert_eq!(
            texts(source.paths.iter()),
            ["m::p::X", "g::h", "child::go", "mac::m"]
        );
    }

    #[test]
    fn unit_tests_do_not_count_and_what_follows_them_does() {
        let source = read(
            "#[cfg(test)]\n#[allow(x)]\nmod tests;\nmod child;\n#[cfg(test)]\nmod more { use crate::no; fn f() {} }
            struct S { #[cfg(test)] a: crate::no::A, b: crate::yes::B }\n#[cfg(test)]\nfn g<A, B>() { crate::no::x() }
            use crate::a;",
        );
        assert_eq!(source.files, [["m", "n", "child"].map(str::to_owned)]);
        assert_eq!(texts(source.paths.iter()), ["yes::B"]);
        assert_eq!(source.imports.len(), 1);
    }

    #[test]
    fn modules_in_braces_have_their_own_parent() {
        let text = "mod inner { mod deep; fn f() { super::a::b(); } } fn g() { super::c::d(); }";
        let found = super::read(&["m".to_owned()], text);
        let paths: Vec<_> = found
            .iter()
            .map(|(module, source)| (module.join("::"), texts(source.paths.iter())))
            .collect();
        let expected = [("m", "c::d"), ("m::inner", "m::a::b")];
        assert_eq!(
            paths,
            expected.map(|(module, path)| (module.to_owned(), vec![path.to_owned()]))
        );
        let inner = &found[&["m", "inner"].map(str::to_owned)[..]];
        assert_eq!(inner.files, [["m", "inner", "deep"].map(str::to_owned)]);
    }
}

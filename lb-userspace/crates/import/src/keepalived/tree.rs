//! Blocks of keepalived's configuration.

use std::rc::Rc;

use super::words::{self, Variables};
use crate::{
    error::ImportError,
    include::Include,
    statement::{Size, Statement},
};

/// Deepest nesting of blocks: keepalived's own have 5.
const MAX_DEPTH: usize = 32;
/// Deepest nesting of files that include others.
const MAX_INCLUDES: usize = 16;
/// Most files.
const MAX_FILES: usize = 1024;

/// A line with the block that it begins.
#[derive(Debug)]
pub(super) struct Node {
    /// The line.
    pub(super) line: Rc<Statement>,
    /// Lines in its block.
    pub(super) children: Vec<Node>,
}

impl Node {
    /// Its first word.
    pub(super) fn keyword(&self) -> &str {
        self.line.word(0)
    }

    /// The line and all lines in its block, in order.
    pub(super) fn statements(&self) -> Vec<Rc<Statement>> {
        let mut all = vec![Rc::clone(&self.line)];
        all.extend(self.children.iter().flat_map(Self::statements));
        all
    }

    /// None of its lines has a counterpart.
    pub(super) fn lose(&self, reason: &str) {
        for line in self.statements() {
            line.lose_all(reason);
        }
    }
}

/// Reads a configuration with the files that it includes.
///
/// # Errors
/// A quote or a block does not end, blocks or files are nested too deeply, or a line is too long.
pub(super) fn read(file: &Rc<str>, text: &str, include: Include<'_>) -> Result<Vec<Node>, ImportError> {
    let mut reader = Reader {
        include,
        variables: Variables::default(),
        files: 0,
        size: Size::default(),
        // The file, and each open block in it.
        blocks: vec![Vec::new()],
    };
    reader.file(file, text, 0)?;
    Ok(reader.blocks.pop().unwrap_or_default())
}

struct Reader<'a> {
    include: Include<'a>,
    variables: Variables,
    files: usize,
    size: Size,
    blocks: Vec<Vec<Node>>,
}

impl Reader<'_> {
    fn file(&mut self, file: &Rc<str>, text: &str, depth: usize) -> Result<(), ImportError> {
        let outer = self.blocks.len();
        let mut last = 1;
        // Whether the line belongs to the definition before it.
        let mut goes_on = false;
        for (number, line) in (1..).zip(text.lines()) {
            last = number;
            if goes_on || line.trim_start().starts_with('$') && line.trim_end().ends_with('\\') {
                goes_on = line.trim_end().ends_with('\\');
                let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
                self.size.add(file, number, words.len(), line.len())?;
                self.add(Statement::new(file, number, line, words)).lose_all(
                    "definitions of several lines are not read: write their lines where they are used",
                );
                continue;
            }
            let replaced = self.variables.replace(file, number, line)?;
            if self.variables.define(line) {
                // Its value may have variables, too.
                if let Some((name, _)) = line.split_once('=')
                    && let Some((_, value)) = replaced.split_once('=')
                {
                    self.variables.define(&format!("{name}={value}"));
                }
                let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
                self.size.add(file, number, words.len(), replaced.len())?;
                self.add(Statement::new(file, number, line, words)).map_all();
                continue;
            }
            let words = words::split(file, number, &replaced)?;
            self.size.add(file, number, words.len(), replaced.len())?;
            self.line(file, number, line, words, depth)?;
        }
        if self.blocks.len() != outer {
            return Err(ImportError::syntax(
                file,
                last,
                "a block is not closed: } is missing",
            ));
        }
        Ok(())
    }

    fn line(
        &mut self,
        file: &Rc<str>,
        number: usize,
        line: &str,
        words: Vec<String>,
        depth: usize,
    ) -> Result<(), ImportError> {
        let shown = Statement::shown(line, &words);
        let part =
            |words: &mut Vec<String>| Statement::part(file, number, Rc::clone(&shown), std::mem::take(words));
        let mut pending: Vec<String> = Vec::new();
        for word in words {
            match word.as_str() {
                "{" => {
                    if !pending.is_empty() {
                        self.add(part(&mut pending));
                    }
                    let is_after_a_word = self.blocks.last().is_some_and(|block| !block.is_empty());
                    if !is_after_a_word {
                        return Err(ImportError::syntax(
                            file,
                            number,
                            "a block { begins without a word",
                        ));
                    }
                    if self.blocks.len() > MAX_DEPTH {
                        return Err(ImportError::syntax(
                            file,
                            number,
                            format!("blocks are nested more than {MAX_DEPTH} deep"),
                        ));
                    }
                    self.blocks.push(Vec::new());
                }
                "}" => {
                    if !pending.is_empty() {
                        self.add(part(&mut pending));
                    }
                    let Some(block) = self.blocks.pop() else {
                        return Ok(());
                    };
                    let Some(owner) = self.blocks.last_mut().and_then(|block| block.last_mut()) else {
                        return Err(ImportError::syntax(file, number, "} closes no block"));
                    };
                    owner.children.extend(block);
                }
                _ => pending.push(word),
            }
        }
        if pending.is_empty() {
            return Ok(());
        }
        let is_include = pending.first().is_some_and(|first| first.starts_with("include"));
        let statement = self.add(part(&mut pending));
        if statement.word(0).starts_with('@') {
            statement.note("conditions are not read: the line counts as if it held");
        }
        if is_include && statement.words.len() == 2 {
            self.included(&statement, depth)?;
        }
        Ok(())
    }

    fn add(&mut self, line: Rc<Statement>) -> Rc<Statement> {
        if let Some(block) = self.blocks.last_mut() {
            block.push(Node {
                line: Rc::clone(&line),
                children: Vec::new(),
            });
        }
        line
    }

    fn included(&mut self, line: &Statement, depth: usize) -> Result<(), ImportError> {
        let files = match (self.include)(line.word(1), &line.file) {
            Ok(files) => files,
            Err(why) => {
                line.lose_all(format!("the file is not read: {why}"));
                return Ok(());
            }
        };
        if depth >= MAX_INCLUDES {
            return Err(ImportError::syntax(
                &line.file,
                line.line,
                format!("files include each other more than {MAX_INCLUDES} deep"),
            ));
        }
        let mut unread = None;
        for file in files {
            self.files += 1;
            if self.files > MAX_FILES {
                return Err(ImportError::syntax(
                    &line.file,
                    line.line,
                    format!("more than {MAX_FILES} files are included"),
                ));
            }
            match file {
                Ok((name, text)) => self.file(&name.into(), &text, depth + 1)?,
                Err(why) => unread = unread.or(Some(why)),
            }
        }
        match unread {
            Some(why) => line.lose_all(format!("the file is not read: {why}")),
            None => line.map_all(),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::include::Files;

    /// Lines of a large file.
    const MANY: usize = 500_000;

    fn none<'a>(_: &str, _: &str) -> Result<Files<'a>, String> {
        Err("no such file".into())
    }

    fn files<'a>(all: Vec<(String, String)>) -> Result<Files<'a>, String> {
        Ok(Box::new(all.into_iter().map(Ok)))
    }

    /// A directory of logs, included by mistake, would fill the memory.
    #[test]
    fn files_of_a_pattern_are_read_until_they_are_too_much() {
        let read_files = Cell::new(0);
        let large = |_: &str, _: &str| -> Result<Files<'_>, String> {
            Ok(Box::new((0..1_000).map(|number| {
                read_files.set(read_files.get() + 1);
                Ok((format!("f{number}"), "a\n".repeat(MANY)))
            })))
        };
        let error = read(&"k".into(), "include *\n", &large).unwrap_err();
        assert!(error.to_string().contains("longer than"), "{error}");
        assert!(read_files.get() < 20, "{} files", read_files.get());
    }

    #[test]
    fn file_that_cannot_be_read_keeps_no_other_file_out() {
        let one_of_two = |_: &str, _: &str| -> Result<Files<'_>, String> {
            Ok(Box::new(
                [
                    Err("a: denied".to_owned()),
                    Ok(("b".to_owned(), "b\n".to_owned())),
                ]
                .into_iter(),
            ))
        };
        let nodes = read(&"k".into(), "include *\n", &one_of_two).unwrap();
        assert_eq!(shape(&nodes), "include b");
    }

    fn shape(nodes: &[Node]) -> String {
        let each = nodes.iter().map(|node| match node.children.as_slice() {
            [] => node.keyword().to_owned(),
            children => format!("{}({})", node.keyword(), shape(children)),
        });
        each.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn blocks_are_read_wherever_their_braces_stand() {
        for text in [
            "a {\n  b\n  c {\n d\n }\n}\ne\n",
            "a\n{\nb\nc\n{\nd\n}\n}\ne",
            "a { b\n c { d } }\n e",
        ] {
            let nodes = read(&"k.conf".into(), text, &none).unwrap();
            assert_eq!(shape(&nodes), "a(b c(d)) e", "{text}");
        }
    }

    #[test]
    fn unbalanced_and_endless_files_are_errors_with_their_place() {
        let deep = "a {\n".repeat(1000);
        for (text, error) in [
            ("a {\n b\n", "k.conf:2: a block is not closed: } is missing"),
            ("}\n", "k.conf:1: } closes no block"),
            ("a }\n", "k.conf:1: } closes no block"),
            ("\n{\n", "k.conf:2: a block { begins without a word"),
            (deep.as_str(), "k.conf:33: blocks are nested more than 32 deep"),
        ] {
            let found = read(&"k.conf".into(), text, &none).unwrap_err();
            assert_eq!(found.to_string(), error);
        }
        let endless = |_: &str, from: &str| files(vec![(format!("{from}x"), "include again\n".to_owned())]);
        let error = read(&"k".into(), "include again\n", &endless).unwrap_err();
        assert!(error.to_string().contains("more than 16 deep"), "{error}");
        let wide = |_: &str, _: &str| files(vec![("k".to_owned(), "include a\ninclude a\n".to_owned()); 2]);
        let error = read(&"k".into(), "include a\n", &wide).unwrap_err();
        assert!(error.to_string().contains("more than"), "{error}");
    }
}

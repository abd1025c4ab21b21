//! How the tables of keys are written: a key with its words, and values of the usual types.

use super::{
    access::Access,
    key::{Absent, CliOption, Key, KeyTable, Separated, Shape, Value},
};
use crate::{state::words::Word, value_error::ValueError};

/// A required key.
pub(super) const fn required(
    name: &'static str,
    access: Access,
    value: Value,
    example: &'static str,
    help: &'static str,
) -> Key {
    new(name, access, value, Absent::Required(example), help)
}

/// A key with a default value.
pub(super) const fn default(
    name: &'static str,
    access: Access,
    value: Value,
    default: &'static str,
    help: &'static str,
) -> Key {
    new(name, access, value, Absent::Default(default), help)
}

/// An optional key whose absence means none of its values.
pub(super) const fn optional(
    name: &'static str,
    access: Access,
    value: Value,
    (otherwise, example): (&'static str, &'static str),
    help: &'static str,
) -> Key {
    new(name, access, value, Absent::Otherwise(otherwise, example), help)
}

/// A key that holds a table or tables.
pub(super) const fn table(
    name: &'static str,
    access: Access,
    table: &'static KeyTable,
    help: &'static str,
) -> Key {
    new(name, access, tables(table), Absent::Otherwise("none", ""), help)
}

const fn new(name: &'static str, access: Access, value: Value, absent: Absent, help: &'static str) -> Key {
    Key {
        name,
        access,
        value,
        absent,
        help,
        more: "",
        kinds: &[],
        option: Some(CliOption {
            name: "",
            value_name: "",
            remark: "",
            check: |_| Ok(()),
        }),
        instead: None,
        is_of_file: false,
        is_removed_by_empty: false,
        is_secret: false,
        needs_restart: false,
    }
}

/// More words about a key.
impl Key {
    pub(super) const fn more(mut self, more: &'static str) -> Self {
        self.more = more;
        self
    }

    pub(super) const fn of(mut self, kinds: &'static [&'static str]) -> Self {
        self.kinds = kinds;
        self
    }

    pub(super) const fn instead_of(mut self, other: &'static str) -> Self {
        self.instead = Some(other);
        self
    }

    pub(super) const fn of_file(mut self) -> Self {
        self.is_of_file = true;
        self.without_option()
    }

    pub(super) const fn removed_by_empty(mut self) -> Self {
        self.is_removed_by_empty = true;
        self
    }

    pub(super) const fn secret(mut self) -> Self {
        self.is_secret = true;
        self
    }

    pub(super) const fn at_start(mut self) -> Self {
        self.needs_restart = true;
        self
    }

    pub(super) const fn without_option(mut self) -> Self {
        self.option = None;
        self
    }

    /// Names the option.
    pub(super) const fn option(mut self, name: &'static str) -> Self {
        if let Some(option) = &mut self.option {
            option.name = name;
        }
        self
    }

    /// Names the option's value.
    pub(super) const fn takes(mut self, value_name: &'static str) -> Self {
        if let Some(option) = &mut self.option {
            option.value_name = value_name;
        }
        self
    }

    /// Adds to the help of the option.
    pub(super) const fn remark(mut self, remark: &'static str) -> Self {
        if let Some(option) = &mut self.option {
            option.remark = remark;
        }
        self
    }

    /// Lets the option check its value.
    pub(super) const fn checked(mut self, check: fn(&str) -> Result<(), ValueError>) -> Self {
        if let Some(option) = &mut self.option {
            option.check = check;
        }
        self
    }
}

/// One of the words of a type.
pub(super) const fn one_of<W: Word>() -> Value {
    words(|| W::WORDS.iter().map(|(_, word)| *word).collect())
}

pub(super) const fn words(words: fn() -> Vec<&'static str>) -> Value {
    value(Shape::Word(words), "", "")
}

pub(super) const fn number(least: u32, most: u32) -> Value {
    value(Shape::Number(least, most), "", "N")
}

/// Texts, and what help calls one.
pub(super) const fn described(about: &'static str, name: &'static str) -> Value {
    value(Shape::Text, about, name)
}

/// A list of texts, and what help calls one.
pub(super) const fn texts(about: &'static str, name: &'static str, separated: Separated) -> Value {
    value(Shape::Texts(separated), about, name)
}

/// Values of any type.
pub(super) const fn value(shape: Shape, about: &'static str, name: &'static str) -> Value {
    Value { shape, about, name }
}

pub(super) const fn tables(table: &'static KeyTable) -> Value {
    value(Shape::Table(table), "", "TABLE")
}

pub(super) const BOOLEAN: Value = value(Shape::Bool, "`true` or `false`", "BOOL");
pub(super) const DURATION: Value = described("duration, up to `1d`", "DURATION");
pub(super) const TEXT: Value = described("text", "TEXT");
pub(super) const PORT: Value = number(0, 65_535);
pub(super) const ADDRESS: Value = described("IP address", "IP");
pub(super) const PREFIXES: Value = texts("list of prefixes", "PREFIX", Separated::ByCommas);
pub(super) const NUMBER: Value = number(0, u32::MAX);
pub(super) const FRACTION: Value = value(Shape::Share, "0 to 1", "SHARE");
pub(super) const REGEX: Value = described("regular expression", "REGEX");
pub(super) const HEX: Value = described("hexadecimal text", "HEX");
pub(super) const FILE_PATH: Value = described("path of a file", "FILE");
pub(super) const ABSOLUTE: Value = described("absolute path", "DIR");

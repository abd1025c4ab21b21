//! A table being read: typed access that reports wrong values, and in the end unknown keys.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the types of TOML are fixed by its specification"
)]

use std::collections::BTreeMap;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    error::{Reporter, Span},
    values::{self, ValueError},
};

/// Positions of the values of a table's keys; for a missing key, the position of the table.
#[derive(Clone, Debug, Default)]
pub(super) struct Spans {
    table: Span,
    values: BTreeMap<String, Span>,
}

impl Spans {
    pub(super) fn of(&self, key: &str) -> Span {
        self.values.get(key).unwrap_or(&self.table).clone()
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }
}

pub(super) struct Table<'a> {
    table: &'a DeTable<'a>,
    span: Span,
    /// How messages name it.
    header: &'static str,
    asked: Vec<&'static str>,
}

impl<'a> Table<'a> {
    pub(super) fn new(table: &'a DeTable<'a>, span: Span, header: &'static str) -> Self {
        Self {
            table,
            span,
            header,
            asked: Vec::new(),
        }
    }

    pub(super) fn span(&self) -> Span {
        self.span.clone()
    }

    pub(super) fn spans(&self) -> Spans {
        let values = self
            .table
            .iter()
            .map(|(key, value)| (key.get_ref().to_string(), value.span()));
        Spans {
            table: self.span.clone(),
            values: values.collect(),
        }
    }

    fn value(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.push(key);
        self.table
            .iter()
            .find(|(name, _)| name.get_ref() == key)
            .map(|(_, value)| value)
    }

    /// A value by `convert`; `None` if it is missing or wrong.
    fn read<T>(
        &mut self,
        reporter: &mut Reporter<'_>,
        key: &'static str,
        convert: impl FnOnce(&DeValue<'_>) -> Result<T, ValueError>,
    ) -> Option<T> {
        let value = self.value(key)?;
        report(reporter, key, value, convert(value.get_ref()))
    }

    /// A string, given to `parse`.
    pub(super) fn text<T>(
        &mut self,
        reporter: &mut Reporter<'_>,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, ValueError>,
    ) -> Option<T> {
        self.read(reporter, key, |value| parse(string(value)?))
    }

    /// As [`Self::text`], for secrets: no message repeats the value.
    pub(super) fn secret<T>(
        &mut self,
        reporter: &mut Reporter<'_>,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, ValueError>,
    ) -> Option<T> {
        self.read(reporter, key, |value| match value {
            DeValue::String(text) => parse(text),
            other => Err(wrong_type("a string", other)),
        })
    }

    /// A duration.
    pub(super) fn duration(
        &mut self,
        reporter: &mut Reporter<'_>,
        key: &'static str,
    ) -> Option<std::time::Duration> {
        self.read(reporter, key, |value| match value {
            DeValue::Integer(number) => Err(ValueError::new(
                format!("expected a duration, found the number {number}"),
                format!("\"{number}s\" is seconds"),
            )),
            value => values::duration(string(value)?),
        })
    }

    /// An integer, its decimal text given to `parse`.
    pub(super) fn number<T>(
        &mut self,
        reporter: &mut Reporter<'_>,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, ValueError>,
    ) -> Option<T> {
        self.read(reporter, key, |value| parse(&integer(value)?))
    }

    /// A string or an integer, its text given to `parse`.
    pub(super) fn text_or_number<T>(
        &mut self,
        reporter: &mut Reporter<'_>,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, ValueError>,
    ) -> Option<T> {
        self.read(reporter, key, |value| match value {
            DeValue::String(text) => parse(text),
            value => parse(&integer(value)?),
        })
    }

    /// A float or an integer, its text given to `parse`.
    pub(super) fn real<T>(
        &mut self,
        reporter: &mut Reporter<'_>,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, ValueError>,
    ) -> Option<T> {
        self.read(reporter, key, |value| match value {
            DeValue::Float(number) => parse(number.as_str()),
            DeValue::Integer(_) => parse(&integer(value)?),
            other => Err(wrong_type("a number", other)),
        })
    }

    /// An array of strings, or one of integers, each given to `parse` as text; wrong items are left out.
    pub(super) fn list<T>(
        &mut self,
        reporter: &mut Reporter<'_>,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, ValueError>,
        numbers: bool,
    ) -> Option<Vec<T>> {
        let value = self.value(key)?;
        let DeValue::Array(items) = value.get_ref() else {
            return report(reporter, key, value, Err(wrong_type("an array", value.get_ref())));
        };
        let item = |item: &DeValue<'_>| {
            if numbers {
                parse(&integer(item)?)
            } else {
                parse(string(item)?)
            }
        };
        Some(
            items
                .iter()
                .filter_map(|value| report(reporter, key, value, item(value.get_ref())))
                .collect(),
        )
    }

    /// A string or an integer, or an array of these, the text of each given to `parse`; wrong items are left out, and `None`
    /// stands for a value without a right one.
    pub(super) fn texts_or_numbers<T>(
        &mut self,
        reporter: &mut Reporter<'_>,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, ValueError>,
    ) -> Option<Vec<T>> {
        let value = self.value(key)?;
        let items = match value.get_ref() {
            DeValue::Array(items) => items.iter().collect(),
            _ => vec![value],
        };
        let item = |item: &DeValue<'_>| match item {
            DeValue::String(text) => parse(text),
            value => parse(&integer(value)?),
        };
        let is_empty = items.is_empty();
        let read: Vec<T> = items
            .into_iter()
            .filter_map(|value| report(reporter, key, value, item(value.get_ref())))
            .collect();
        // With every item wrong, an empty list would be one error more.
        (is_empty || !read.is_empty()).then_some(read)
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, reporter: &mut Reporter<'_>, key: &'static str) -> Option<bool> {
        self.read(reporter, key, |value| match value {
            DeValue::Boolean(yes) => Ok(*yes),
            other => Err(wrong_type("true or false", other)),
        })
    }

    /// A table of strings, in the order of the file.
    pub(super) fn strings(
        &mut self,
        reporter: &mut Reporter<'_>,
        key: &'static str,
    ) -> Option<Vec<(String, String)>> {
        let value = self.value(key)?;
        let DeValue::Table(table) = value.get_ref() else {
            return report(
                reporter,
                key,
                value,
                Err(wrong_type("a table of strings", value.get_ref())),
            );
        };
        let mut pairs = Vec::new();
        for (name, value) in table {
            if let Some(text) = report(reporter, key, value, string(value.get_ref())) {
                pairs.push((name.span().start, (name.get_ref().to_string(), text.to_owned())));
            }
        }
        pairs.sort_by_key(|(start, _)| *start);
        Some(pairs.into_iter().map(|(_, pair)| pair).collect())
    }

    /// A table; `None` if it is missing or something else.
    pub(super) fn table(
        &mut self,
        reporter: &mut Reporter<'_>,
        key: &'static str,
        header: &'static str,
    ) -> Option<Table<'a>> {
        let value = self.value(key)?;
        let DeValue::Table(table) = value.get_ref() else {
            return report(reporter, key, value, Err(wrong_type("a table", value.get_ref())));
        };
        Some(Table::new(table, value.span(), header))
    }

    /// The tables of an array of tables.
    pub(super) fn tables(
        &mut self,
        reporter: &mut Reporter<'_>,
        key: &'static str,
        header: &str,
    ) -> Vec<(&'a DeTable<'a>, Span)> {
        let Some(value) = self.value(key) else {
            return Vec::new();
        };
        let wrong = |found: &DeValue<'_>| {
            ValueError::new(
                format!("expected a list of tables, found {}", type_name(found)),
                format!("write {} above each", header),
            )
        };
        let DeValue::Array(items) = value.get_ref() else {
            let _: Option<()> = report(reporter, key, value, Err(wrong(value.get_ref())));
            return Vec::new();
        };
        let table = |item: &'a Spanned<DeValue<'a>>| match item.get_ref() {
            DeValue::Table(table) => Ok((table, item.span())),
            other => Err(wrong(other)),
        };
        items
            .iter()
            .filter_map(|item| report(reporter, key, item, table(item)))
            .collect()
    }

    /// Reports a missing required key.
    pub(super) fn require(&self, reporter: &mut Reporter<'_>, key: &str, example: &str) {
        if !self.table.iter().any(|(name, _)| name.get_ref() == key) {
            let message = format!("{} has no {key}", self.header);
            reporter.error(self.span.clone(), message, Some(format!("add {key} = {example}")));
        }
    }

    /// Reports the keys that were not read: unknown ones.
    pub(super) fn finish(self, reporter: &mut Reporter<'_>) {
        for key in self
            .table
            .keys()
            .filter(|key| !self.asked.contains(&key.get_ref().as_ref()))
        {
            let hint = match values::nearest(key.get_ref(), self.asked.iter().copied()) {
                Some(known) => format!("did you mean {known}?"),
                None => format!("{} has: {}", self.header, self.asked.join(", ")),
            };
            reporter.error(
                key.span(),
                format!("unknown key {} in {}", key.get_ref(), self.header),
                Some(hint),
            );
        }
    }
}

fn report<T>(
    reporter: &mut Reporter<'_>,
    key: &str,
    value: &Spanned<DeValue<'_>>,
    result: Result<T, ValueError>,
) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(ValueError { message, hint }) => {
            reporter.error(value.span(), format!("{key}: {message}"), hint);
            None
        }
    }
}

fn string<'a>(value: &'a DeValue<'_>) -> Result<&'a str, ValueError> {
    match value {
        DeValue::String(text) => Ok(text),
        DeValue::Integer(number) => Err(ValueError::new(
            "expected a string, found an integer",
            format!("write \"{number}\""),
        )),
        other => Err(wrong_type("a string", other)),
    }
}

/// The decimal text of an integer of any base in the file.
fn integer(value: &DeValue<'_>) -> Result<String, ValueError> {
    match value {
        DeValue::Integer(number) => Ok(i128::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| number.to_string(), |number| number.to_string())),
        DeValue::String(text) if text.parse::<i64>().is_ok() => Err(ValueError::new(
            "expected an integer, found a string",
            format!("write {text} without quotes"),
        )),
        other => Err(wrong_type("an integer", other)),
    }
}

fn wrong_type(expected: &str, found: &DeValue<'_>) -> ValueError {
    ValueError::new(format!("expected {expected}, found {}", type_name(found)), "")
}

/// The kind of a TOML value, for messages.
fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

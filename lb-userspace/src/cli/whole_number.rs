//! Whole numbers on the command line, which refuse a plus sign, as the configuration file does in a text.

use std::{ffi::OsStr, ops::RangeBounds};

use clap::{
    Arg, Command, Error,
    builder::{RangedU64ValueParser, TypedValueParser},
    error::ErrorKind,
};

/// A parser of numbers that refuses a plus sign.
#[derive(Clone)]
pub(super) struct Unsigned<P>(pub(super) P);

impl<P: TypedValueParser> TypedValueParser for Unsigned<P> {
    type Value = P::Value;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<P::Value, Error> {
        if let Some(digits) = value.to_str().and_then(|text| text.strip_prefix('+')) {
            let option = arg.map(ToString::to_string).unwrap_or_default();
            let what = format!("invalid value '+{digits}' for '{option}': write {digits}\n");
            return Err(Error::raw(ErrorKind::ValueValidation, what).with_cmd(command));
        }
        self.0.parse_ref(command, arg, value)
    }
}

/// A parser of numbers in a range.
pub(super) fn whole_number<N: TryFrom<u64> + Clone + Send + Sync>(
    range: impl RangeBounds<u64>,
) -> Unsigned<RangedU64ValueParser<N>> {
    Unsigned(RangedU64ValueParser::new().range(range))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    /// The options and first arguments of a command and those below it that take a number, each with whether it takes a plus sign.
    fn numbers(command: &Command, path: &str, found: &mut Vec<(String, bool)>) {
        for arg in command.get_arguments() {
            let is_invalid = |value: &str| {
                let option = arg.get_long().map(|long| format!("--{long}={value}"));
                let words = ["lb".to_owned(), option.unwrap_or_else(|| value.to_owned())];
                let parsed = command.clone().no_binary_name(false).try_get_matches_from(words);
                parsed.is_err_and(|error| error.kind() == ErrorKind::ValueValidation)
            };
            let is_first = arg.get_index().is_none_or(|index| index == 1);
            if arg.get_action().takes_values() && is_first && !is_invalid("1") && is_invalid("x") {
                found.push((format!("{path} {arg}"), !is_invalid("+1")));
            }
        }
        for command in command.get_subcommands() {
            numbers(command, &format!("{path} {}", command.get_name()), found);
        }
    }

    #[test]
    fn no_number_on_the_command_line_has_a_plus_sign() {
        let mut command = Cli::command();
        command.build();
        let mut found = Vec::new();
        numbers(&command, "lb", &mut found);
        for known in [
            "lb rollback [TO]",
            "lb monitor --count <N>",
            "lb service add --port <N>",
        ] {
            assert!(
                found.iter().any(|(option, _)| option == known),
                "{known}: {found:#?}"
            );
        }
        found.retain(|(_, takes_plus)| *takes_plus);
        assert!(found.is_empty(), "{found:#?}");
    }
}

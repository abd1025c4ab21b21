//! Wrong usage: what clap says, with the remedy of a value that makes no sense.

use std::{error::Error as _, net::AddrParseError, num::ParseIntError};

use clap::{Error, Parser as _};

use super::{Cli, output::remark};
use crate::config::values::ValueError;

impl Cli {
    /// The command line of this process; ends it where that is wrong, or asks for help.
    pub fn parse_or_exit() -> Self {
        Self::try_parse().unwrap_or_else(|error| {
            // A closed stderr or stdout changes nothing about the exit code.
            let _ = error.print();
            if let Some(hint) = hint(&error) {
                remark(&format!("hint: {hint}"));
            }
            std::process::exit(error.exit_code())
        })
    }
}

/// The remedy for a value.
fn hint(error: &Error) -> Option<String> {
    let why = error.source()?;
    if let Some(error) = why.downcast_ref::<ValueError>() {
        return error.hint.clone();
    }
    let text = if why.is::<AddrParseError>() {
        "an address is 192.0.2.10 or 2001:db8::1, and with its port 192.0.2.10:80 or [2001:db8::1]:80"
    } else if why.is::<ParseIntError>() {
        "expected a whole number"
    } else {
        return None;
    };
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_makes_no_sense_has_a_remedy() {
        for (line, remedy) in [
            ("lb backend drain web a --deadline 5", "2s"),
            ("lb events --since yesterday", "2s"),
            ("lb explain tcp 192.0.2.7 192.0.2.10:80", "[2001:db8::1]:80"),
            ("lb doctor --vip web", "2001:db8::1"),
            ("lb history latest", "a whole number"),
        ] {
            let error = Cli::try_parse_from(line.split(' ')).unwrap_err();
            let hint = hint(&error).unwrap();
            assert!(hint.contains(remedy), "{line}: {hint}");
        }
        let unknown = Cli::try_parse_from(["lb", "status", "--nonsense"]).unwrap_err();
        assert_eq!(hint(&unknown), None);
    }
}

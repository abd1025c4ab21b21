//! Options that set keys of the configuration file, made of the table of keys: name, help, type and candidates of each.

use clap::{
    Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches,
    builder::{PossibleValuesParser, RangedI64ValueParser, TypedValueParser},
    error::ErrorKind,
};
use toml::{Table, Value};

use super::{completions, help, whole_number::Unsigned};
use crate::{
    config::{
        change::Request,
        keys::{self, Absent, Key, KeyTable, Separated, Shape},
        values::{self, ValueError},
    },
    number,
};

/// A table whose keys have options.
struct Group {
    keys: &'static KeyTable,
    /// Its key in the table of the service; empty: it is the table itself.
    below: &'static str,
    /// Its options begin with this.
    prefix: &'static str,
    /// Whether its options have headings of their own in the help.
    has_headings: bool,
}

const fn group(keys: &'static KeyTable, below: &'static str, prefix: &'static str) -> Group {
    Group {
        keys,
        below,
        prefix,
        has_headings: false,
    }
}

const SERVICE: [Group; 4] = [
    group(&keys::SERVICE, "", ""),
    group(&keys::GUARD, "guard", ""),
    group(&keys::AGENT, "agent", "agent-"),
    Group {
        has_headings: true,
        ..group(&keys::HEALTH, "health", "check-")
    },
];
const BACKEND: [Group; 1] = [group(&keys::BACKEND, "", "")];

/// As many kinds of check, or more, have a key that stands with those of all kinds.
const MOST_KINDS: usize = 8;
/// Stands for an empty list.
const NONE: &str = "none";

/// The keys that the options of a service set; `NEW`: of one that is added.
#[derive(Clone, Debug)]
pub(super) struct ServiceKeys<const NEW: bool>(pub(super) Request);

/// The keys that the options of a backend set; `NEW`: of one that is added.
#[derive(Clone, Debug)]
pub(super) struct BackendKeys<const NEW: bool>(pub(super) Request);

macro_rules! options {
    ($($type:ident: $groups:ident;)+) => {$(
        impl<const NEW: bool> Args for $type<NEW> {
            fn augment_args(command: Command) -> Command {
                augment(command, &$groups, NEW)
            }

            fn augment_args_for_update(command: Command) -> Command {
                Self::augment_args(command)
            }
        }

        impl<const NEW: bool> FromArgMatches for $type<NEW> {
            fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
                request(matches, &$groups).map(Self)
            }

            fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
                *self = Self::from_arg_matches(matches)?;
                Ok(())
            }
        }
    )+};
}

options! {
    ServiceKeys: SERVICE;
    BackendKeys: BACKEND;
}

fn augment(command: Command, groups: &'static [Group], is_new: bool) -> Command {
    let args = groups.iter().flat_map(|group| {
        let keys = group.keys.keys.iter();
        keys.filter_map(move |key| Some(arg(group, key, key.option_name(group.prefix)?, is_new)))
    });
    command.args(args)
}

/// The option of a key.
fn arg(group: &Group, key: &'static Key, name: String, is_new: bool) -> Arg {
    let Key {
        name: _,
        access: _,
        value,
        absent,
        help: _,
        more: _,
        kinds,
        option,
        instead,
        is_of_file: _,
        is_removed_by_empty: _,
        is_secret: _,
        needs_restart: _,
    } = key;
    let heading = match kinds.len() {
        _ if !group.has_headings => None,
        1..MOST_KINDS => Some("Checks of some kinds"),
        _ => Some("Checks"),
    };
    let (action, by_commas, as_words) = match value.shape {
        Shape::Text
        | Shape::Word(_)
        | Shape::Bool
        | Shape::Number(..)
        | Shape::Share
        | Shape::NumberOr(_) => (ArgAction::Set, false, false),
        Shape::Texts(Separated::ByCommas) | Shape::Numbers | Shape::OneOrMore => {
            (ArgAction::Append, true, false)
        }
        Shape::Texts(Separated::ByOptions) | Shape::Map | Shape::Table(_) => {
            (ArgAction::Append, false, false)
        }
        Shape::Texts(Separated::AsWords) => (ArgAction::Append, false, true),
    };
    let arg = Arg::new(id(&name))
        .long(name)
        .value_name(key.value_name())
        .help(help::of_key(
            key,
            &remark(key, option.map_or("", |option| option.remark)),
        ))
        .help_heading(heading)
        .action(action)
        .allow_hyphen_values(as_words)
        .required(is_new && group.below.is_empty() && key.is_required());
    let arg = if by_commas { arg.value_delimiter(',') } else { arg };
    let arg = match (instead, absent) {
        (Some(other), Absent::Required(_)) if is_new => arg.required_unless_present(*other),
        (Some(other), Absent::Default(_) | Absent::Otherwise(..)) => arg.conflicts_with(*other),
        (Some(_) | None, Absent::Required(_) | Absent::Default(_) | Absent::Otherwise(..)) => arg,
    };
    let arg = typed(arg, key);
    match completions::of_key(key) {
        Some(candidates) => arg.add(candidates),
        None => arg,
    }
}

/// The name that an option has among the matches.
fn id(option: &str) -> String {
    option.replace('-', "_")
}

/// What the help adds about the option.
fn remark(key: &Key, own: &str) -> String {
    let several = match key.value.shape {
        Shape::Texts(Separated::ByOptions | Separated::AsWords) | Shape::Map => "may be given several times",
        Shape::Text
        | Shape::Word(_)
        | Shape::Bool
        | Shape::Number(..)
        | Shape::Share
        | Shape::NumberOr(_)
        | Shape::Texts(Separated::ByCommas)
        | Shape::Numbers
        | Shape::OneOrMore
        | Shape::Table(_) => "",
    };
    let none = if takes_none(key) { "none: no list" } else { "" };
    let remarks = [own, several, none].into_iter().filter(|words| !words.is_empty());
    remarks.collect::<Vec<_>>().join("; ")
}

/// Whether [`NONE`] stands for an empty list of texts: where that is the default.
fn takes_none(key: &Key) -> bool {
    matches!(key.value.shape, Shape::Texts(_)) && key.absent == Absent::Default("[]")
}

/// The option with the parser of its values.
fn typed(arg: Arg, key: &'static Key) -> Arg {
    match key.value.shape {
        Shape::Bool => {
            let words = PossibleValuesParser::new(["true", "false"]);
            arg.value_parser(words.map(|word| Value::from(word == "true")))
        }
        Shape::Number(least, most) => {
            let range = RangedI64ValueParser::<i64>::new().range(i64::from(least)..=i64::from(most));
            arg.value_parser(Unsigned(range).map(Value::from))
        }
        Shape::Text
        | Shape::Word(_)
        | Shape::Share
        | Shape::NumberOr(_)
        | Shape::Texts(_)
        | Shape::Numbers
        | Shape::OneOrMore
        | Shape::Map
        | Shape::Table(_) => arg.value_parser(move |text: &str| read(key, text)),
    }
}

/// One value of an option, as the file has it.
fn read(key: &Key, text: &str) -> Result<Value, String> {
    let number_or_text = || number::decimal::<i64>(text).map_or_else(|| Value::from(text), Value::from);
    match key.value.shape {
        Shape::Share => values::share(text).map(Value::from).map_err(with_hint),
        Shape::NumberOr(_) | Shape::Numbers | Shape::OneOrMore => Ok(number_or_text()),
        Shape::Map => {
            let (name, value) = text.split_once(':').ok_or("write it as \"Name: value\"")?;
            let pair = (name.trim().to_owned(), Value::from(value.trim()));
            Ok(Table::from_iter([pair]).into())
        }
        Shape::Table(keys) if keys.header == keys::CLIENTS.header => clients(text),
        Shape::Table(keys) => table(keys, text),
        Shape::Text | Shape::Word(_) | Shape::Bool | Shape::Number(..) | Shape::Texts(_) => {
            let check = key.option.map(|option| option.check);
            check.map_or(Ok(()), |check| check(text)).map_err(with_hint)?;
            Ok(text.into())
        }
    }
}

/// A table as in the configuration file: `{ kind = "tcp" }`; or none.
fn table(keys: &KeyTable, text: &str) -> Result<Value, String> {
    if text == NONE {
        return Ok(Value::Array(Vec::new()));
    }
    let line = format!("table = {text}").parse::<Table>();
    let mut line = line.map_err(|error| error.message().to_owned())?;
    let Some(Value::Table(table)) = line.remove("table") else {
        return Err("write it as { key = value }".to_owned());
    };
    if let Some(name) = line.keys().next() {
        return Err(format!(
            "{name} is outside of the braces: write it as {{ key = value }}"
        ));
    }
    if let Some(name) = table.keys().find(|name| keys.key(name).is_none()) {
        let known = keys.keys.iter().map(|key| key.name);
        let hint = match values::nearest(name, known.clone()) {
            Some(known) => format!("did you mean {known}?"),
            None => format!("it has: {}", known.collect::<Vec<_>>().join(", ")),
        };
        return Err(format!("unknown key {name}: {hint}"));
    }
    Ok(table.into())
}

/// Clients of a group: `near=10.0.0.0/8,192.0.2.0/24`; empty: none.
fn clients(text: &str) -> Result<Value, String> {
    if text.is_empty() {
        return Ok(Value::Array(Vec::new()));
    }
    let example = "it names no group and prefixes: for example near=10.0.0.0/8,192.0.2.0/24";
    let (group, from) = text.split_once('=').ok_or(example)?;
    let from: Vec<Value> = from.split(',').map(Value::from).collect();
    let keys = [
        ("group".to_owned(), group.into()),
        ("from".to_owned(), from.into()),
    ];
    Ok(Table::from_iter(keys).into())
}

fn with_hint(error: ValueError) -> String {
    match &error.hint {
        Some(hint) => format!("{error}: {hint}"),
        None => error.to_string(),
    }
}

/// The keys that were given.
fn request(matches: &ArgMatches, groups: &[Group]) -> Result<Request, Error> {
    let mut request = Request::default();
    for group in groups {
        for key in group.keys.keys {
            let Some(name) = key.option_name(group.prefix) else {
                continue;
            };
            let Some(given) = matches.get_many::<Value>(&id(&name)) else {
                continue;
            };
            let joined = joined(key, given.cloned().collect()).map_err(|twice| {
                let message = format!("--{name} has {twice} twice: give it once");
                Error::raw(ErrorKind::ValueValidation, message)
            })?;
            if let Some(value) = joined {
                match group.below {
                    "" => request.insert(key.name, value),
                    below => request.insert_below(below, key.name, value),
                }
            }
        }
    }
    Ok(request)
}

/// All values of an option as one.
///
/// # Errors
/// The name that several of its pairs have.
fn joined(key: &Key, given: Vec<Value>) -> Result<Option<Value>, String> {
    Ok(Some(match key.value.shape {
        Shape::Text
        | Shape::Word(_)
        | Shape::Bool
        | Shape::Number(..)
        | Shape::Share
        | Shape::NumberOr(_) => {
            return Ok(given.into_iter().next_back());
        }
        Shape::Texts(_) if takes_none(key) && given == [Value::from(NONE)] => Value::Array(Vec::new()),
        Shape::Texts(_) | Shape::Numbers | Shape::OneOrMore => given.into(),
        Shape::Map => {
            let tables = given.into_iter().filter_map(|pair| pair.try_into::<Table>().ok());
            let mut all = Table::new();
            for (name, value) in tables.flatten() {
                if all.contains_key(&name) {
                    return Err(name);
                }
                all.insert(name, value);
            }
            all.into()
        }
        // An empty list among them stands for none.
        Shape::Table(_) => {
            let tables = given.into_iter().filter(|table| !table.is_array());
            tables.collect::<Vec<_>>().into()
        }
    }))
}

#[cfg(test)]
mod tests;

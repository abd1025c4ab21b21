//! Single values from text. The file, the command line and the API share them, so that all give the same errors.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    str::FromStr,
    time::{Duration, SystemTime},
};

pub use crate::value_error::ValueError;
use crate::{
    duration, number,
    state::{
        guard::{Prefix, PrefixError},
        hosts::{HostName, HostNameError},
        names::NameError,
        ports::{PortRange, PortRangeError},
        service::RingSize,
        words::Word,
    },
};

/// Longest name of a network interface, in bytes: ALTIFNAMSIZ less the final zero (linux/if.h). Only alternative names are
/// longer than 15.
const MAX_INTERFACE_NAME: usize = 127;

/// Longest path of a unix socket: `sun_path` less the final zero (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

/// A name of a service or backend.
///
/// # Errors
/// The text is not such a value, for the reason in the error.
pub fn name<N: FromStr<Err = NameError>>(text: &str) -> Result<N, ValueError> {
    text.parse()
        .map_err(|error: NameError| ValueError::new(error.to_string(), ""))
}

/// An IPv4 or IPv6 address.
///
/// # Errors
/// The text is not such a value, for the reason in the error.
pub fn address(text: &str) -> Result<IpAddr, ValueError> {
    text.parse().map_err(|_| {
        let hint = if text.contains('/') {
            "write it without a prefix length"
        } else if text.parse::<SocketAddr>().is_ok() {
            "write it without a port; the port has its own key"
        } else if text.starts_with('[') {
            "write it without brackets"
        } else {
            "for example \"192.0.2.10\" or \"2001:db8::10\"; names are not looked up"
        };
        ValueError::new(format!("{text:?} is no IP address"), hint)
    })
}

/// The address of a service: one, which is a prefix of its whole length, or a prefix.
///
/// # Errors
/// What is wrong with the text.
pub fn service_address(text: &str) -> Result<Prefix, ValueError> {
    if text.contains('/') {
        return prefix(text);
    }
    address(text).map(|address| Prefix::around(address, Prefix::most(address)))
}

/// A prefix of addresses.
///
/// # Errors
/// The text is not such a value, for the reason in the error.
pub fn prefix(text: &str) -> Result<Prefix, ValueError> {
    text.parse().map_err(|error: PrefixError| {
        let hint = match &error {
            PrefixError::Malformed(_) => {
                "for example \"10.0.0.0/8\", \"2001:db8::/32\" or \"192.0.2.7\"".to_owned()
            }
            PrefixError::TooLong { most, .. } => format!("from 0 to {most}"),
            PrefixError::Mapped(_) => "write the IPv4 address itself".to_owned(),
            PrefixError::HostBits { meant, .. } => format!("write \"{meant}\""),
        };
        ValueError::new(error.to_string(), hint)
    })
}

/// An address with a port.
///
/// # Errors
/// The text is not such a value, for the reason in the error.
pub fn endpoint(text: &str) -> Result<SocketAddr, ValueError> {
    match text.parse() {
        Ok(SocketAddr::V6(v6)) if v6.scope_id() != 0 => Err(ValueError::new(
            format!("{text:?} has a scope, which no packet carries"),
            "use a routable address",
        )),
        Ok(endpoint) => Ok(endpoint),
        Err(_) => {
            let hint = match text.parse::<IpAddr>() {
                Ok(IpAddr::V4(v4)) => format!("add the port, for example \"{v4}:8080\""),
                Ok(IpAddr::V6(v6)) => format!("add brackets and the port, for example \"[{v6}]:8080\""),
                Err(_) => "for example \"10.0.0.11:8080\" or \"[2001:db8::11]:8080\"".to_owned(),
            };
            Err(ValueError::new(
                format!("{text:?} is no address with a port"),
                hint,
            ))
        }
    }
}

/// A port; 0 stands for every port, in keys that allow it.
///
/// # Errors
/// The text is not such a value, for the reason in the error.
pub fn port(text: &str) -> Result<u16, ValueError> {
    text.parse()
        .map_err(|_| ValueError::new(format!("{text} is no port"), "from 0 to 65535"))
}

/// A port, or a range of consecutive ports.
///
/// # Errors
/// The text is not such a value, for the reason in the error.
pub fn port_range(text: &str) -> Result<PortRange, ValueError> {
    text.parse().map_err(|error: PortRangeError| {
        let hint = match error {
            PortRangeError::Malformed | PortRangeError::Backwards => "for example 443 or \"8000-8100\"",
            PortRangeError::Zero => "set port = 0 instead of ports",
        };
        ValueError::new(format!("{text}: {error}"), hint)
    })
}

/// The address of a backend.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BackendAddress {
    /// An IP address with a port.
    Ip(SocketAddr),
    /// Every address of a host name, on this port.
    Host(HostName, u16),
}

/// The address of a backend: without a port, or with port 0, packets keep theirs. A host name needs a port.
///
/// # Errors
/// The text is not such a value, for the reason in the error.
pub fn backend_address(text: &str) -> Result<BackendAddress, ValueError> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(BackendAddress::Ip(SocketAddr::new(address, 0)));
    }
    let no_address = match endpoint(text) {
        Ok(endpoint) => return Ok(BackendAddress::Ip(endpoint)),
        Err(error) => error,
    };
    let (host, given) = match text.rsplit_once(':') {
        Some((host, given)) => (host, Some(given)),
        None => (text, None),
    };
    // Brackets or further colons mean an IPv6 address.
    if host.contains([':', '[', ']', '/']) {
        return Err(no_address);
    }
    match host.parse::<HostName>() {
        Ok(name) => match given.map(number::decimal) {
            Some(Some(port)) => Ok(BackendAddress::Host(name, port)),
            Some(None) => Err(ValueError::new(
                format!("{text:?} has no port that can be used"),
                format!("a port is from 0 to 65535, for example \"{name}:8080\""),
            )),
            None => Err(ValueError::new(
                format!("{text:?} is a host name without a port"),
                format!("add the port, for example \"{name}:8080\""),
            )),
        },
        Err(HostNameError::Number) => Err(no_address),
        Err(error) => {
            let hint = match error {
                HostNameError::NotAscii => "write the name's A-label, which begins with \"xn--\"",
                HostNameError::Number | HostNameError::TooLong | HostNameError::Label => {
                    "for example \"10.0.0.11:8080\", \"[2001:db8::11]:8080\" or \"app.example.org:8080\""
                }
            };
            Err(ValueError::new(
                format!("{text:?} is neither an address nor a host name with a port: {error}"),
                hint,
            ))
        }
    }
}

/// As [`backend_address`], but without host names.
///
/// # Errors
/// The text is not such a value, for the reason in the error.
pub fn backend_ip(text: &str) -> Result<SocketAddr, ValueError> {
    match backend_address(text)? {
        BackendAddress::Ip(address) => Ok(address),
        BackendAddress::Host(..) => Err(is_host(text)),
    }
}

/// A host name.
///
/// # Errors
/// The text is no such name.
pub fn host_name(text: &str) -> Result<HostName, ValueError> {
    text.parse()
        .map_err(|error: HostNameError| ValueError::new(error.to_string(), "for example lb1.example.org"))
}

/// The error for a host name where an address is needed.
pub(super) fn is_host(text: &str) -> ValueError {
    ValueError::new(
        format!("{text:?} is a host name, which only the configuration file may give a backend"),
        "write it to a [[service.backend]] table of the file, then `lb apply FILE`",
    )
}

/// A weight; 0 drains.
///
/// # Errors
/// The text is not such a value, for the reason in the error.
pub fn weight(text: &str) -> Result<u16, ValueError> {
    number::decimal(text).ok_or_else(|| {
        ValueError::new(
            format!("{text} is no weight"),
            "from 1 to 65535, or 0 for no new flows",
        )
    })
}

/// HTTP statuses: one (`204`), a class (`2xx`), a range (`200-299`), or several of these with commas between.
///
/// # Errors
/// The text is not such a value, for the reason in the error.
pub fn statuses(text: &str) -> Result<Vec<RangeInclusive<u16>>, ValueError> {
    text.split(',').map(|item| status_range(item.trim())).collect()
}

fn status_range(text: &str) -> Result<RangeInclusive<u16>, ValueError> {
    let range = match text.split_once('-') {
        Some((first, last)) => single_status(first).zip(single_status(last)),
        None => status_class(text).or_else(|| single_status(text).map(|status| (status, status))),
    };
    match range {
        // Bounded here: a range is kept as the list of its statuses.
        Some((first, last)) if first <= last && last <= 599 => Ok(first..=last),
        Some(_) | None => Err(ValueError::new(
            format!("{text} is no HTTP status, class or range of them"),
            "for example 204, \"2xx\", \"200-299\" or [200, \"3xx\"]",
        )),
    }
}

fn single_status(text: &str) -> Option<u16> {
    number::decimal(text.trim())
}

/// The first and the last status of a class, such as `2xx`.
fn status_class(text: &str) -> Option<(u16, u16)> {
    let digit = text.strip_suffix("xx").or_else(|| text.strip_suffix("XX"))?;
    let first = number::decimal::<u16>(digit).filter(|class| (1..=5).contains(class))? * 100;
    Some((first, first + 99))
}

/// Statuses in ascending order in TOML, as [`statuses`] reads them.
pub(super) fn status_text(statuses: &[u16]) -> String {
    let runs = statuses.chunk_by(|one, next| one.checked_add(1) == Some(*next));
    let values = runs.flat_map(|run| match run {
        [first, _, .., last] => vec![format!("\"{first}-{last}\"")],
        few => few.iter().map(u16::to_string).collect(),
    });
    match values.collect::<Vec<_>>().as_slice() {
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    }
}

/// A duration; see [`duration::parse`].
///
/// # Errors
/// The text is not such a value, for the reason in the error.
pub fn duration(text: &str) -> Result<Duration, ValueError> {
    duration::parse(text)
}

/// A moment in UTC, to the millisecond (RFC 3339).
///
/// # Errors
/// The text is not such a value, for the reason in the error.
pub fn moment(text: &str) -> Result<SystemTime, ValueError> {
    let moment = humantime::parse_rfc3339(text).ok().and_then(whole_millis);
    moment.ok_or_else(|| {
        ValueError::new(
            format!("{text:?} is no moment"),
            "for example \"2030-01-31T12:00:00Z\"",
        )
    })
}

/// A moment as RFC 3339 text in UTC with milliseconds, as [`moment`] reads it.
pub fn rfc3339(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

/// A moment rounded down to the millisecond, as it is stored. `None` before 1970.
pub fn whole_millis(moment: SystemTime) -> Option<SystemTime> {
    let since = moment.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let millis = u64::try_from(since.as_millis()).ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_millis(millis))
}

/// One of a few words.
///
/// # Errors
/// The text is none of them. The hint names the nearest, or all.
pub fn word<W: Word>(text: &str) -> Result<W, ValueError> {
    W::from_word(text).ok_or_else(|| unknown_word(W::KEY, text, W::WORDS.iter().map(|(_, word)| *word)))
}

/// The error for a text that is none of the words of a key.
pub(super) fn unknown_word<'a>(
    key: &str,
    text: &str,
    words: impl Iterator<Item = &'a str> + Clone,
) -> ValueError {
    let hint = match nearest(text, words.clone()) {
        Some(word) => format!("did you mean \"{word}\"?"),
        None => format!("one of: {}", words.collect::<Vec<_>>().join(", ")),
    };
    ValueError::new(format!("{text:?} is no {key}"), hint)
}

/// A ring size: `auto`, or a number of slots.
///
/// # Errors
/// The text is neither. The check of the service tests that the number is a prime in range.
pub fn ring_size(text: &str) -> Result<RingSize, ValueError> {
    match text {
        "auto" => Ok(RingSize::Auto),
        _ => number::decimal(text).map(RingSize::Slots).ok_or_else(|| {
            ValueError::new(
                format!("{text:?} is no ring_size"),
                "\"auto\", or a prime from 251 to 131071",
            )
        }),
    }
}

/// A range of ports, `first-last`.
///
/// # Errors
/// The text is not such a value, for the reason in the error.
pub fn ports(text: &str) -> Result<RangeInclusive<u16>, ValueError> {
    let range = text.split_once('-').and_then(|(first, last)| {
        let (first, last) = (number::decimal(first.trim())?, number::decimal(last.trim())?);
        (0 < first && first <= last).then_some(first..=last)
    });
    range.ok_or_else(|| {
        let hint = "\"first-last\" with ports from 1 to 65535, for example \"1024-32767\"";
        ValueError::new(format!("{text:?} is no range of ports"), hint)
    })
}

/// A name that a network interface can have.
///
/// # Errors
/// The text is no such name, for the reason in the error.
pub fn interface(text: &str) -> Result<String, ValueError> {
    let fits = (1..=MAX_INTERFACE_NAME).contains(&text.len()) && text != "." && text != "..";
    if fits && !text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control()) {
        return Ok(text.to_owned());
    }
    Err(ValueError::new(
        format!("{text:?} is no name of an interface"),
        "`ip link` lists them",
    ))
}

pub(super) fn path(text: &str) -> Result<PathBuf, ValueError> {
    let path = PathBuf::from(text);
    if path.is_absolute() {
        return Ok(path);
    }
    Err(ValueError::new(
        format!("{text:?} is no absolute path"),
        "begin it with /",
    ))
}

/// The path of a unix socket.
///
/// # Errors
/// It is relative, or longer than an address of such a socket.
pub fn socket(text: &str) -> Result<PathBuf, ValueError> {
    if text.len() > MAX_SOCKET_PATH {
        return Err(ValueError::new(
            format!("a socket's path has at most {MAX_SOCKET_PATH} bytes"),
            "",
        ));
    }
    path(text)
}

/// A whole number from 0.
///
/// # Errors
/// The text is not such a value, for the reason in the error.
pub fn count<N: FromStr>(text: &str) -> Result<N, ValueError> {
    number::decimal(text).ok_or_else(|| ValueError::new(format!("{text} is no whole number in range"), ""))
}

/// A share, such as jitter.
///
/// # Errors
/// The text is no number. The check of the setting tests that it lies between 0 and 1.
pub fn share(text: &str) -> Result<f64, ValueError> {
    number::fraction(text)
        .ok_or_else(|| ValueError::new(format!("{text} is no number"), "from 0 to 1, for example 0.1"))
}

/// Bytes in hexadecimal: a server id or a key.
///
/// # Errors
/// The text is no hexadecimal text of whole bytes.
pub fn hex<T: FromStr<Err = String>>(text: &str) -> Result<T, ValueError> {
    text.parse().map_err(|message: String| {
        ValueError::new(
            message,
            "write two hexadecimal digits for each byte, for example \"0a1b2c\"",
        )
    })
}

/// The nearest word, if it differs by at most two slips and by less than half of it.
pub fn nearest<'a>(text: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = text.to_lowercase();
    let distance =
        |word: &str| strsim::damerau_levenshtein(&lower.replace('-', "_"), &word.replace('-', "_"));
    let rated = words.into_iter().map(|word| (distance(word), word));
    let (distance, word) = rated.min_by_key(|(distance, _)| *distance)?;
    (distance <= 2 && 2 * distance < word.len()).then_some(word)
}

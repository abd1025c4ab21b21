//! Names of services and backends from names and addresses of a source.

use std::{collections::HashMap, net::IpAddr, str::FromStr};

use lb_model::state::names::{MAX_NAME_LEN, NameError};

/// Names that are taken, each with the number that was last added to it.
#[derive(Default, Debug)]
pub(crate) struct Names(HashMap<String, usize>);

impl Names {
    /// A name like `wanted` that no other thing has.
    pub(crate) fn unique<N: FromStr<Err = NameError>>(&mut self, wanted: &str) -> Option<N> {
        let base = allowed(wanted);
        let mut number = self.0.get(&base).copied().unwrap_or(0);
        let mut name = base.clone();
        while number > 0 {
            number += 1;
            let suffix = format!("-{number}");
            let kept = base.len().min(MAX_NAME_LEN.saturating_sub(suffix.len()));
            name = format!("{}{suffix}", base.get(..kept).unwrap_or_default());
            if !self.0.contains_key(&name) {
                break;
            }
        }
        self.0.insert(base, number.max(1));
        self.0.entry(name.clone()).or_insert(1);
        name.parse().ok()
    }
}

/// `wanted` with a hyphen in place of characters that names cannot have.
pub(crate) fn allowed(wanted: &str) -> String {
    let fit = |c: char| {
        if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') {
            c
        } else {
            '-'
        }
    };
    let name: String = wanted.chars().map(fit).take(MAX_NAME_LEN).collect();
    if name.is_empty() {
        "unnamed".to_owned()
    } else {
        name
    }
}

/// An address as a name: `192.0.2.10`, `2001-db8--10`.
pub(crate) fn of_address(address: IpAddr) -> String {
    allowed(&address.to_string())
}

/// An address with a port, of which 0 is all, as a name: `192.0.2.10-80`.
pub(crate) fn of_endpoint(address: IpAddr, port: u16) -> String {
    match port {
        0 => format!("{}-all", of_address(address)),
        port => format!("{}-{port}", of_address(address)),
    }
}

#[cfg(test)]
mod tests {
    use lb_model::state::names::ServiceName;

    use super::*;

    #[test]
    fn names_are_allowed_and_unique() {
        let mut names = Names::default();
        let mut unique = |wanted: &str| names.unique::<ServiceName>(wanted).unwrap().to_string();
        assert_eq!(unique("web"), "web");
        assert_eq!(unique("web"), "web-2");
        assert_eq!(unique("web"), "web-3");
        assert_eq!(unique("web:80 é"), "web-80--");
        assert_eq!(unique(""), "unnamed");
        let long = "a".repeat(200);
        assert_eq!(unique(&long).len(), MAX_NAME_LEN);
        let second = unique(&long);
        assert!(
            second.ends_with("a-2") && second.len() == MAX_NAME_LEN,
            "{second}"
        );
        assert_eq!(of_endpoint("192.0.2.1".parse().unwrap(), 0), "192.0.2.1-all");
        assert_eq!(of_address("2001:db8::10".parse().unwrap()), "2001-db8--10");
    }
}

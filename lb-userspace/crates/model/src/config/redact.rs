//! Files of the configuration without credentials.

use toml::{Table, Value};

use super::keys::{self, KeyTable};
use crate::state::secrets::{HIDDEN, Secrets};

/// A file without the credentials in it, and these. Comments and the order of keys are lost.
///
/// A file that is no TOML gives `None` and all quoted texts of lines that name a key of credentials.
pub fn redact(text: &str) -> (Option<String>, Secrets) {
    let mut secrets = Secrets::default();
    let Ok(mut table) = text.parse::<Table>() else {
        for line in text.lines().filter(|line| names_secret(line)) {
            for quoted in line.split(['"', '\'']).skip(1) {
                secrets.add_words(quoted);
            }
        }
        secrets.arrange();
        return (None, secrets);
    };
    redact_table(&mut table, &mut secrets);
    secrets.arrange();
    (Some(table.to_string()), secrets)
}

/// Tables that have keys of credentials.
const TABLES: [&KeyTable; 4] = [&keys::HEALTH, &keys::STEP, &keys::AGENT, &keys::QUIC];
/// The key of a QUIC table that holds a key.
const QUIC_KEY: &str = "key";
/// The key of an HTTP check whose query may hold a credential.
const PATH: &str = "path";
/// Keys whose values are tables of checks themselves.
const NESTED: [&str; 2] = ["also", "steps"];

/// Whether the value of a key with this name may be a credential.
pub fn may_be_credential(name: &str) -> bool {
    let mut keys = TABLES.iter().filter_map(|table| table.key(name));
    keys.any(|key| key.is_secret)
}

fn is_secret(name: &str) -> bool {
    name == QUIC_KEY || (may_be_credential(name) && !NESTED.contains(&name))
}

fn names_secret(line: &str) -> bool {
    line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .any(|word| is_secret(word) || word == PATH)
}

fn redact_table(table: &mut Table, secrets: &mut Secrets) {
    for (name, value) in table.iter_mut() {
        match value {
            Value::String(path) if name == PATH => {
                if let Some((bare, query)) = path.split_once('?') {
                    secrets.add_query(query);
                    *path = format!("{bare}?{HIDDEN}");
                }
            }
            Value::Array(words) if name == "command" => {
                for word in words.iter_mut().skip(1) {
                    hide(word, secrets);
                }
            }
            value if is_secret(name) => hide(value, secrets),
            Value::Table(table) => redact_table(table, secrets),
            Value::Array(values) => {
                for value in values {
                    if let Value::Table(table) = value {
                        redact_table(table, secrets);
                    }
                }
            }
            Value::String(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_) => {}
        }
    }
}

fn hide(value: &mut Value, secrets: &mut Secrets) {
    match value {
        Value::String(text) => {
            secrets.add_words(text);
            *text = HIDDEN.to_owned();
        }
        Value::Table(table) => {
            for (_, value) in table.iter_mut() {
                hide(value, secrets);
            }
        }
        Value::Array(values) => {
            for value in values {
                hide(value, secrets);
            }
        }
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_keeps_everything_but_its_credentials() {
        let text = r#"
            # comment
            [lb]
            interfaces = ["eth0"]
            [[service]]
            name = "web"
            [service.health]
            kind = "http"
            path = "/health?token=a"
            headers = { Authorization = "b" }
            also = [{ kind = "tcp", send = "c" }, { kind = "exec", command = ["/bin/check", "d"] }]
            steps = [{ send = "e", expect = "ok" }]
            [service.agent]
            send = "f"
            [[service.quic]]
            key = "0123456789abcdef0123456789abcdef"
        "#;
        let (redacted, secrets) = redact(text);
        let redacted = redacted.unwrap();
        for kept in [
            "eth0",
            "/health?(hidden)",
            "Authorization",
            "/bin/check",
            "expect = \"ok\"",
            "kind = \"http\"",
        ] {
            assert!(redacted.contains(kept), "{kept}: {redacted}");
        }
        for credential in [
            "\"a\"",
            "token",
            "\"b\"",
            "\"c\"",
            "\"d\"",
            "\"e\"",
            "\"f\"",
            "0123456789",
        ] {
            assert!(!redacted.contains(credential), "{credential}: {redacted}");
        }
        assert_eq!(
            secrets.hide("token=a, 0123456789abcdef0123456789abcdef"),
            "(hidden), (hidden)"
        );
    }

    #[test]
    fn a_broken_file_gives_its_credentials_all_the_same() {
        let (redacted, secrets) =
            redact("[lb\n headers = { A = \"Bearer credential\" }\nname = \"web-service\"\n");
        assert_eq!(redacted, None);
        assert_eq!(
            secrets.hide("credential of web-service"),
            "(hidden) of web-service"
        );
    }
}

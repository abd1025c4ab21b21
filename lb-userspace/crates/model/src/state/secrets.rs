//! Credentials in a desired state, and texts without them: what leaves the machine, or is shown to anybody, has none.

use std::borrow::Cow;

use super::desired::Desired;
use crate::health::settings::{Bytes, CheckKind, HttpCheck};

/// Shortest text that is hidden, in bytes: shorter ones occur everywhere.
const LEAST: usize = 4;
/// Stands for a credential.
pub const HIDDEN: &str = "(hidden)";

/// Texts that may be credentials.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secrets(Vec<String>);

impl Secrets {
    /// The credentials that `desired` may hold: values of request headers and queries, texts sent to servers and agents, arguments of
    /// commands, and keys.
    pub fn of(desired: &Desired) -> Self {
        let mut secrets = Self::default();
        for service in desired.services.values() {
            let also = service.health.also.iter().map(|check| &check.kind);
            for kind in also.chain([&service.health.kind]) {
                secrets.add_check(kind);
            }
            if let Some(agent) = &service.agent {
                secrets.add_words(&agent.send);
            }
            for key in service.quic.iter().filter_map(|quic| quic.key.as_ref()) {
                secrets.add(&key.reveal());
            }
        }
        secrets.arrange();
        secrets
    }

    /// These and those of `other`.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self.arrange();
        self
    }

    /// A text that holds another one is hidden as a whole.
    pub(crate) fn arrange(&mut self) {
        self.0.sort_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
        self.0.dedup();
    }

    /// `text` with a placeholder for each credential in it.
    pub fn hide<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut hidden = Cow::Borrowed(text);
        for secret in &self.0 {
            if hidden.contains(secret.as_str()) {
                hidden = Cow::Owned(hidden.replace(secret.as_str(), HIDDEN));
            }
        }
        hidden
    }

    fn add_check(&mut self, kind: &CheckKind) {
        match kind {
            CheckKind::Http(check) | CheckKind::Http2(check) => self.add_http(check),
            CheckKind::Dialogue(dialogue) => {
                for sent in dialogue.steps.iter().filter_map(|step| step.send.as_ref()) {
                    match sent {
                        Bytes::Text(text) => self.add_words(text),
                        Bytes::Hex(bytes) => {
                            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                            self.add(&hex);
                            self.add_words(&String::from_utf8_lossy(bytes));
                        }
                    }
                }
            }
            CheckKind::Udp(check) => self.add_words(&check.payload),
            CheckKind::Exec(check) => {
                for word in check.command.iter().skip(1) {
                    self.add_words(word);
                }
            }
            CheckKind::None
            | CheckKind::Tcp
            | CheckKind::TcpHalfOpen
            | CheckKind::Tls(_)
            | CheckKind::Grpc(_)
            | CheckKind::Dns(_)
            | CheckKind::Icmp
            | CheckKind::Push(_) => {}
        }
    }

    fn add_http(&mut self, check: &HttpCheck) {
        for (_, value) in &check.headers {
            self.add_words(value);
        }
        if let Some((_, query)) = check.path.split_once('?') {
            self.add_query(query);
        }
    }

    /// The query of a URL, and its values.
    pub(crate) fn add_query(&mut self, query: &str) {
        self.add(query);
        for (_, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            self.add(value);
        }
    }

    /// A text, and its parts, since a server may repeat one of them.
    pub(crate) fn add_words(&mut self, text: &str) {
        self.add(text.trim());
        for word in text.split_whitespace() {
            self.add(word);
            if let Some((_, value)) = word.split_once('=') {
                self.add(value);
            }
        }
    }

    fn add(&mut self, text: &str) {
        if text.len() < LEAST {
            return;
        }
        // As in JSON and in TOML.
        let escaped = format!("{text:?}");
        let escaped = &escaped[1..escaped.len() - 1];
        if escaped != text {
            self.0.push(escaped.to_owned());
        }
        self.0.push(text.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn every_place_of_a_credential_is_hidden_and_the_rest_stays() {
        let toml = r#"
            [[service]]
            name = "web"
            address = "192.0.2.10"
            port = 80
            [service.health]
            kind = "http"
            path = "/health?token=inquery&x=1"
            headers = { Authorization = "Bearer inheader" }
            also = [{ kind = "tcp", send = "AUTH insend\r\n", expect = "OK" }, { kind = "udp", port = 9, payload = "inpayload" },
                    { kind = "tcp", send_hex = "61 62 63 64 65" }, { kind = "exec", command = ["/bin/check", "--pw=inargument"] }]
            [service.agent]
            port = 9000
            send = "inagent"
            [[service.quic]]
            config_id = 1
            server_id_length = 4
            nonce_length = 6
            key = "2b7e151628aed2a6abf7158809cf4f3c"
            [[service.backend]]
            name = "a"
            address = "10.0.0.1:80"
        "#;
        let toml = toml
            .replace("port = 80", "port = 80\nprotocol = \"udp\"")
            .replace("address = \"192", "mode = \"nat\"\naddress = \"192");
        let config = config::parse(&toml, "file").unwrap_or_else(|errors| panic!("{errors:?}"));
        let secrets = Secrets::of(&config.desired);
        for secret in [
            "inquery",
            "Bearer inheader",
            "inheader",
            "AUTH insend",
            "insend",
            "inpayload",
            "6162636465",
            "abcde",
            "inargument",
            "inagent",
            "2b7e151628aed2a6abf7158809cf4f3c",
        ] {
            let hidden = secrets.hide(secret);
            assert_eq!(hidden, HIDDEN, "{secret}");
        }
        let text = "status 500 from http://10.0.0.1:80/health?token=inquery&x=1, expected 200";
        assert_eq!(
            secrets.hide(text),
            "status 500 from http://10.0.0.1:80/health?(hidden), expected 200"
        );
        assert!(matches!(secrets.hide("no route to /bin/check"), Cow::Borrowed(_)));
    }
}

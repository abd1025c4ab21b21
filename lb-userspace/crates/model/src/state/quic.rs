//! Settings of the QUIC connection ids of a service.

use std::{fmt, str::FromStr};

use lb_common::{
    aes::Schedule,
    quic::{Config, MAX_SERVER_ID},
};

/// Bytes in hexadecimal, two digits each; `None` for anything else.
pub fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty()
        .then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// A server id, by which connection ids name a backend.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ServerId {
    bytes: [u8; MAX_SERVER_ID],
    length: u8,
}

impl ServerId {
    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

impl FromStr for ServerId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let given = bytes(text).unwrap_or_default();
        let mut bytes = [0; MAX_SERVER_ID];
        match (bytes.get_mut(..given.len()), u8::try_from(given.len())) {
            (Some(place), Ok(length)) if length > 0 => {
                place.copy_from_slice(&given);
                Ok(Self { bytes, length })
            }
            _ => Err(format!("{text:?} is no server_id")),
        }
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(self.as_bytes(), f)
    }
}

impl fmt::Debug for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A key of AES-128. Only [`Self::reveal`] shows it; elsewhere its [`Fingerprint`] stands for it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct QuicKey(pub [u8; 16]);

/// Stands for a key in output: enough to distinguish two keys, and to find a known one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 4]);

/// Prefix of a fingerprint's text.
const HIDDEN: &str = "hidden:";

impl QuicKey {
    /// The key in hexadecimal, only for the store.
    pub fn reveal(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The first bytes of a block of zeros under the key, as usual for check values of keys (ANSI X9.24-1 annex C): no
    /// block of a connection id is ever zero as a whole.
    pub fn fingerprint(&self) -> Fingerprint {
        let [word, ..] = Schedule::to_encrypt(self.0).encrypt([0; 4]);
        Fingerprint(word.to_be_bytes())
    }
}

impl FromStr for QuicKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let key = bytes(text).and_then(|bytes| bytes.try_into().ok());
        key.map(Self)
            .ok_or_else(|| "this is no key of 16 bytes".to_owned())
    }
}

impl fmt::Debug for QuicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.fingerprint(), f)
    }
}

impl Fingerprint {
    /// The fingerprint in a text; `None` for any other text, which may be a key itself.
    pub fn from_text(text: &str) -> Option<Self> {
        let bytes = bytes(text.strip_prefix(HIDDEN)?)?;
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)?;
        hex(&self.0, f)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How servers write the connection ids of a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QuicSettings {
    /// The configuration id, 0 to 6.
    pub config_id: u8,
    /// Bytes of a server id.
    pub server_id_length: u8,
    /// Bytes of a nonce.
    pub nonce_length: u8,
    /// Key that encrypts them; `None`: they are not encrypted.
    pub key: Option<QuicKey>,
}

impl QuicSettings {
    /// The configuration for the data plane; `None` where the draft does not allow the lengths or the id.
    pub fn config(&self) -> Option<Config> {
        let Self {
            config_id,
            server_id_length,
            nonce_length,
            key,
        } = *self;
        let key = key.map(|QuicKey(key)| key);
        Config::new(config_id, server_id_length.into(), nonce_length.into(), key).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_keys_are_whole_bytes_of_a_length_that_fits() {
        for text in ["0a", "ed793a51d49b8f5fab65ee080dbf48"] {
            assert_eq!(text.parse::<ServerId>().unwrap().to_string(), text);
        }
        for text in ["", "a", "0g", "+a", "ed793a51d49b8f5fab65ee080dbf48c0"] {
            assert!(text.parse::<ServerId>().is_err(), "{text}");
        }
        let key = "8f95f09245765f80256934e50c66207f";
        assert_eq!(key.parse::<QuicKey>().unwrap().reveal(), key);
        for text in ["", &key[2..], "8f95f09245765f80256934e50c66207g"] {
            let error = text.parse::<QuicKey>().unwrap_err();
            assert!(text.is_empty() || !error.contains(text), "{error}");
        }
    }

    /// The example of RFC 4493 section 4 begins with this block.
    #[test]
    fn a_fingerprint_stands_for_its_key_and_shows_none_of_it() {
        let text = "2b7e151628aed2a6abf7158809cf4f3c";
        let key: QuicKey = text.parse().unwrap();
        assert_eq!(format!("{key:?}"), "hidden:7df76b0c");
        assert_eq!(Fingerprint::from_text("hidden:7df76b0c"), Some(key.fingerprint()));
        for other in [text, "7df76b0c", "hidden:7df76b0", "hidden:7df76b0c1a"] {
            assert_eq!(Fingerprint::from_text(other), None, "{other}");
        }
        assert_ne!(QuicKey([7; 16]).fingerprint(), key.fingerprint());
    }
}

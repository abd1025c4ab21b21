//! Reads the fields of a certificate that a check needs (RFC 5280 section 4.1), from its DER form, of any version.
//! Pure.

use std::time::{Duration, SystemTime};

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const DAY: u64 = 24 * 60 * 60;

/// Parts of a certificate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outline<'a> {
    /// 1 to 3.
    pub(super) version: u8,
    /// Begin and end of its validity; `None` where they cannot be read.
    pub(super) not_before: Option<SystemTime>,
    pub(super) not_after: Option<SystemTime>,
    /// The public key, as in `subjectPublicKey`.
    pub(super) key: &'a [u8],
}

/// The parts of a certificate; `None` if it is invalid.
pub(super) fn outline(der: &[u8]) -> Option<Outline<'_>> {
    let (_, certificate, _) = element(der)?;
    let (_, body, _) = element(certificate)?;
    let (first, version, after_first) = element(body)?;
    // The version comes first where it is not the default; then serial number, algorithm and issuer.
    let serial = if first == VERSION { after_first } else { body };
    let (_, _, algorithm) = element(serial)?;
    let (_, _, issuer) = element(algorithm)?;
    let (_, _, validity) = element(issuer)?;
    let (SEQUENCE, dates, subject) = element(validity)? else {
        return None;
    };
    let (_, _, end) = element(dates)?;
    let (_, _, key_info) = element(subject)?;
    let (SEQUENCE, key_info, _) = element(key_info)? else {
        return None;
    };
    let (_, _, key) = element(key_info)?;
    let (BIT_STRING, key, _) = element(key)? else {
        return None;
    };
    Some(Outline {
        version: match first {
            VERSION => element(version)?.1.last()?.saturating_add(1),
            _ => 1,
        },
        not_before: date(dates),
        not_after: date(end),
        // Without the number of bits that do not count: keys have whole bytes.
        key: key.get(1..)?,
    })
}

/// Attribute `commonName` (RFC 5280 appendix A.1).
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// Extension `subjectAltName` (RFC 5280 section 4.2.1.6).
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// Extension `basicConstraints` (RFC 5280 section 4.2.1.9).
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
/// Extension `extKeyUsage`, and usages in it (RFC 5280 section 4.2.1.12).
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
const ANY_USAGE: &[u8] = &[0x55, 0x1d, 0x25, 0x00];
const SERVER_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];
const CLIENT_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];
const BOOLEAN: u8 = 0x01;
const OBJECT_ID: u8 = 0x06;
const OCTET_STRING: u8 = 0x04;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const EXTENSIONS: u8 = 0xa3;
const MAIL: u8 = 0x81;
const DNS: u8 = 0x82;
const URI: u8 = 0x86;

/// What a certificate says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateFacts {
    /// As of [`names`].
    pub names: Vec<String>,
    /// Begin of its validity; `None` where it cannot be read.
    pub not_before: Option<SystemTime>,
    /// End of its validity; `None` where it cannot be read.
    pub not_after: Option<SystemTime>,
    /// Whether it may sign other certificates.
    pub is_ca: bool,
    /// Whether clients may show it, where it limits its use.
    pub for_clients: bool,
    /// Whether servers may show it, where it limits its use.
    pub for_servers: bool,
}

/// What a certificate says of itself; `None` if it is invalid.
pub fn facts(der: &[u8]) -> Option<CertificateFacts> {
    let Outline {
        version,
        not_before,
        not_after,
        key: _,
    } = outline(der)?;
    let (names, extensions) = (names(der)?, extensions(der)?);
    // Certificates without extensions say nothing of what they may be used for (RFC 5280 section 4.2).
    let is_ca = match extension(extensions, BASIC_CONSTRAINTS) {
        Some(octets) => matches!(element(element(octets)?.1), Some((BOOLEAN, [0xff], _))),
        None => version < 3,
    };
    let usages = extension(extensions, EXTENDED_KEY_USAGE).and_then(|octets| Some(element(octets)?.1));
    let allows = |usage: &[u8]| {
        usages.is_none_or(|list| {
            elements(list)
                .map_while(|id| id)
                .any(|(_, id)| id == usage || id == ANY_USAGE)
        })
    };
    Some(CertificateFacts {
        names,
        not_before,
        not_after,
        is_ca,
        for_clients: allows(CLIENT_AUTH),
        for_servers: allows(SERVER_AUTH),
    })
}

/// When a revocation list is to be replaced (`nextUpdate`, RFC 5280 section 5.1); `None` where it does not say, or is invalid.
pub fn next_update(der: &[u8]) -> Option<SystemTime> {
    let (_, list, _) = element(der)?;
    let (_, body, _) = element(list)?;
    let (first, _, after_first) = element(body)?;
    // The version comes first where it is there; then algorithm, issuer and `thisUpdate`.
    let algorithm = if first == INTEGER { after_first } else { body };
    let (_, _, issuer) = element(algorithm)?;
    let (_, _, this_update) = element(issuer)?;
    let (_, _, next_update) = element(this_update)?;
    date(next_update)
}

/// Attributes of names (RFC 4519 section 2) and their keywords.
const ATTRIBUTES: [(&[u8], &str); 6] = [
    (COMMON_NAME, "CN"),
    (&[0x55, 0x04, 0x06], "C"),
    (&[0x55, 0x04, 0x07], "L"),
    (&[0x55, 0x04, 0x08], "ST"),
    (&[0x55, 0x04, 0x0a], "O"),
    (&[0x55, 0x04, 0x0b], "OU"),
];
/// Most characters that [`identity`] shows of a name: whoever made the certificate chose them.
const SHOWN: usize = 200;

/// Which certificate it is, as `openssl x509` and `openssl crl` write it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CertificateIdentity {
    /// As of [`names`], with commas between them.
    pub subject: String,
    /// In hexadecimal, capital letters.
    pub serial: String,
    /// Such as `O=Example, CN=clients`.
    pub issuer: String,
}

/// Which certificate it is; `None` if it is invalid. Attributes with control characters, and unusual ones, are left out.
pub fn identity(der: &[u8]) -> Option<CertificateIdentity> {
    let (_, certificate, _) = element(der)?;
    let (_, body, _) = element(certificate)?;
    let (first, _, after_first) = element(body)?;
    let serial = if first == VERSION { after_first } else { body };
    let (INTEGER, digits, algorithm) = element(serial)? else {
        return None;
    };
    let (_, _, issuer) = element(algorithm)?;
    let (_, issuer, _) = element(issuer)?;
    // A zero in front says that the number is not negative.
    let digits = match digits {
        [0, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    let shown = |text: String| text.chars().take(SHOWN).collect();
    Some(CertificateIdentity {
        subject: shown(names(der)?.join(", ")),
        serial: shown(digits.iter().map(|byte| format!("{byte:02X}")).collect()),
        issuer: shown(attributes(issuer)?.join(", ")),
    })
}

/// The attributes of a name, each with its keyword; `None` if it is invalid.
fn attributes(name: &[u8]) -> Option<Vec<String>> {
    let mut found = Vec::new();
    for set in elements(name) {
        for attribute in elements(set?.1) {
            let (OBJECT_ID, id, value) = element(attribute?.1)? else {
                continue;
            };
            let keyword = ATTRIBUTES.iter().find(|(known, _)| *known == id);
            let text = match element(value)? {
                (UTF8_STRING | PRINTABLE_STRING, text, _) => text_of(text),
                _ => None,
            };
            found.extend(
                keyword
                    .zip(text)
                    .map(|((_, keyword), text)| format!("{keyword}={text}")),
            );
        }
    }
    Some(found)
}

/// The names of a certificate's subject: common names, then mail addresses, DNS names and URIs among its alternative names; `None`
/// if it is invalid. Names with control characters are left out.
pub fn names(der: &[u8]) -> Option<Vec<String>> {
    let mut names = Vec::new();
    for set in elements(subject(der)?.0) {
        for (_, attribute) in elements(set?.1).map_while(|attribute| attribute) {
            let (OBJECT_ID, COMMON_NAME, value) = element(attribute)? else {
                continue;
            };
            if let (UTF8_STRING | PRINTABLE_STRING, text, _) = element(value)? {
                names.extend(text_of(text));
            }
        }
    }
    let Some(octets) = extension(extensions(der)?, SUBJECT_ALT_NAME) else {
        return Some(names);
    };
    for name in elements(element(octets)?.1) {
        if let (MAIL | DNS | URI, text) = name? {
            names.extend(text_of(text));
        }
    }
    Some(names)
}

/// The subject's name, and what follows the public key.
fn subject(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_, certificate, _) = element(der)?;
    let (_, body, _) = element(certificate)?;
    let (first, _, after_first) = element(body)?;
    let serial = if first == VERSION { after_first } else { body };
    let (_, _, algorithm) = element(serial)?;
    let (_, _, issuer) = element(algorithm)?;
    let (_, _, validity) = element(issuer)?;
    let (_, _, subject) = element(validity)?;
    let (_, subject, key_info) = element(subject)?;
    let (_, _, rest) = element(key_info)?;
    Some((subject, rest))
}

/// The list of extensions; empty where there are none, `None` if the certificate is invalid.
fn extensions(der: &[u8]) -> Option<&[u8]> {
    let (_, mut rest) = subject(der)?;
    while !rest.is_empty() {
        let (tag, content, after) = element(rest)?;
        if tag == EXTENSIONS {
            return Some(element(content)?.1);
        }
        rest = after;
    }
    Some(&[])
}

/// The value of an extension; `None` where it is missing or invalid.
fn extension<'a>(extensions: &'a [u8], id: &[u8]) -> Option<&'a [u8]> {
    elements(extensions)
        .map_while(|extension| extension)
        .find_map(|(_, extension)| {
            let (OBJECT_ID, found, value) = element(extension)? else {
                return None;
            };
            // It may be critical, which comes before.
            let octets = match element(value)? {
                (OCTET_STRING, octets, _) => octets,
                (_, _, after) => element(after)?.1,
            };
            (found == id).then_some(octets)
        })
}

fn text_of(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let is_plain = !text.is_empty() && !text.contains(char::is_control);
    is_plain.then(|| text.to_owned())
}

/// Tag and content of each element; ends with `None` where one is invalid.
fn elements(mut der: &[u8]) -> impl Iterator<Item = Option<(u8, &[u8])>> {
    std::iter::from_fn(move || {
        if der.is_empty() {
            return None;
        }
        let found = element(der);
        der = found.map_or(&[], |(_, _, rest)| rest);
        Some(found.map(|(tag, content, _)| (tag, content)))
    })
}

/// Bits of the modulus of an RSA key (RFC 8017 appendix A.1.1); `None` of another key.
pub(super) fn rsa_bits(key: &[u8]) -> Option<usize> {
    let (SEQUENCE, numbers, []) = element(key)? else {
        return None;
    };
    let (INTEGER, modulus, _) = element(numbers)? else {
        return None;
    };
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let first = modulus.get(zeros)?;
    let bits = (modulus.len() - zeros) * 8;
    bits.checked_sub(usize::try_from(first.leading_zeros()).ok()?)
}

/// The time that is the first element.
fn date(der: &[u8]) -> Option<SystemTime> {
    match element(der)? {
        (UTC_TIME, text, _) => {
            let year = number(text.get(..2)?)?;
            time(if year < 50 { 2000 } else { 1900 } + year, text.get(2..)?)
        }
        (GENERALIZED_TIME, text, _) => time(number(text.get(..4)?)?, text.get(4..)?),
        _ => None,
    }
}

/// Tag and content of the first element, and the rest.
pub(super) fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&length, rest) = rest.split_first()?;
    let (length, rest) = if length < 0x80 {
        (usize::from(length), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
        let length = bytes.iter().try_fold(0_usize, |length, byte| {
            Some(length.checked_mul(256)? | usize::from(*byte))
        })?;
        (length, rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number, digit| {
        digit
            .is_ascii_digit()
            .then(|| number * 10 + u64::from(digit - b'0'))
    })
}

/// `MMDDHHMMSSZ` of a year.
fn time(year: u64, text: &[u8]) -> Option<SystemTime> {
    let part = |place: usize| number(text.get(place..place + 2)?);
    let (month, day) = (part(0)?, part(2)?);
    if !(1..=12).contains(&month) || day == 0 || year < 1970 {
        return None;
    }
    // Days since 1970, with years that begin in March so that the leap day is the last.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = (year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1)
        .checked_sub(719_468)?;
    let seconds = days * DAY + part(4)? * 3600 + part(6)? * 60 + part(8)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn not_after(der: &[u8]) -> Option<SystemTime> {
        outline(der)?.not_after
    }

    #[test]
    fn names_of_a_subject_are_read_and_garbage_has_none() {
        let mut params = rcgen::CertificateParams::new(vec!["ci.example.org".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "alice");
        params
            .distinguished_name
            .push(rcgen::DnType::OrganizationName, "not a name");
        let uri = rcgen::SanType::URI("spiffe://example.org/lb".try_into().unwrap());
        params.subject_alt_names.push(uri);
        let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let der = certificate.der();
        // rcgen gives a common name of its own, which is replaced.
        let expected = ["alice", "ci.example.org", "spiffe://example.org/lb"];
        assert_eq!(names(der).unwrap(), expected);
        for length in 0..der.len() {
            // Cut short it has no more names than whole, and nothing panics.
            assert!(names(&der[..length]).is_none_or(|names| names.len() <= 3));
        }
    }

    #[test]
    fn a_certificate_is_identified_by_names_serial_number_and_issuer() {
        let name = |params: &mut rcgen::CertificateParams, name: &str| {
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
        };
        let mut ca = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        name(&mut ca, "clients");
        ca.distinguished_name
            .push(rcgen::DnType::OrganizationName, "Example");
        ca.distinguished_name
            .push(rcgen::DnType::OrganizationalUnitName, "two\nlines");
        let ca = rcgen::CertifiedIssuer::self_signed(ca, rcgen::KeyPair::generate().unwrap()).unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["ci.example.org".to_owned()]).unwrap();
        name(&mut params, &"x".repeat(300));
        // Its first bit is set, so that a zero stands in front.
        params.serial_number = Some(rcgen::SerialNumber::from_slice(&[0x8a, 0x01]));
        let signed = params
            .signed_by(&rcgen::KeyPair::generate().unwrap(), &ca)
            .unwrap();
        let der = signed.der();
        let found = identity(der).unwrap();
        assert_eq!(
            (found.serial.as_str(), found.issuer.as_str()),
            ("8A01", "CN=clients, O=Example")
        );
        assert_eq!(found.subject, "x".repeat(SHOWN));
        for length in 0..der.len() {
            // Nothing panics.
            let _ = identity(&der[..length]);
        }
    }

    #[test]
    fn a_certificate_says_what_it_may_be_used_for() {
        use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose::*, IsCa};
        let ca = IsCa::Ca(BasicConstraints::Unconstrained);
        for (name, is_ca, usages, expected) in [
            ("no limits", IsCa::NoCa, vec![], (false, true, true)),
            (
                "not a CA in words",
                IsCa::ExplicitNoCa,
                vec![],
                (false, true, true),
            ),
            ("a CA", ca, vec![], (true, true, true)),
            ("server", IsCa::NoCa, vec![ServerAuth], (false, false, true)),
            (
                "client",
                IsCa::NoCa,
                vec![ClientAuth, CodeSigning],
                (false, true, false),
            ),
            (
                "both",
                IsCa::NoCa,
                vec![ClientAuth, ServerAuth],
                (false, true, true),
            ),
            ("any", IsCa::NoCa, vec![Any], (false, true, true)),
            ("neither", IsCa::NoCa, vec![CodeSigning], (false, false, false)),
        ] {
            let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
            params.is_ca = is_ca;
            params.extended_key_usages = usages;
            let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
            let found = facts(certificate.der()).unwrap();
            assert_eq!(
                (found.is_ca, found.for_clients, found.for_servers),
                expected,
                "{name}"
            );
            for length in 0..certificate.der().len() {
                // Nothing panics.
                let _ = facts(&certificate.der()[..length]);
            }
        }
    }

    #[test]
    fn dates_are_read_in_both_forms() {
        let unix = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        // By `date -u -d ... +%s`.
        let cases = [
            ((1970, 1, 2), 86_400),
            ((2024, 2, 29), 1_709_164_800),
            ((2049, 12, 31), 2_524_521_600),
            ((2050, 3, 1), 2_529_705_600),
            ((4096, 1, 1), 67_090_118_400),
        ];
        for ((year, month, day), expected) in cases {
            let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
            params.not_before = rcgen::date_time_ymd(1960, 1, 1);
            params.not_after = rcgen::date_time_ymd(year, month, day);
            let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
            assert_eq!(not_after(certificate.der()).map(unix), Some(expected), "{year}");
        }
    }

    #[test]
    fn garbage_has_no_date() {
        let certificate = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
        let der = certificate.cert.der();
        for end in 0..der.len() {
            assert_eq!(not_after(&der[..end]), None);
        }
        assert_eq!(
            rsa_bits(outline(der).unwrap().key),
            None,
            "an elliptic curve has none"
        );
    }
}

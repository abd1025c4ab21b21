//! What a state file looks like: a header with a checksum, and the state as a configuration file.

use std::{collections::BTreeMap, path::PathBuf};

use super::error::StoreError;
use crate::{
    config::{self, fields::Keys},
    state::{
        desired::{Desired, Revision},
        names::ServiceName,
        service::Service,
        shared::Shared,
    },
};

/// Version of the header and of what follows it.
pub(super) const FORMAT: u32 = 1;
const MAGIC: &str = "lb-state";

/// The text of each service that was saved last.
#[derive(Debug, Default)]
pub(super) struct Texts(pub(super) BTreeMap<ServiceName, (Shared<Service>, Box<str>)>);

impl Texts {
    /// The file's content, behind its header.
    pub(super) fn body(&mut self, desired: &Desired) -> String {
        self.0.retain(|name, _| desired.services.contains_key(name));
        config::export::export_by(desired, |text, service| {
            let known = self.0.get(&service.name).filter(|(of, _)| of.is_same(service));
            if let Some((_, known)) = known {
                text.push_str(known);
                return;
            }
            let new = config::export::service(service, Keys::Whole);
            text.push_str(&new);
            self.0.insert(service.name.clone(), (service.clone(), new.into()));
        })
    }
}

pub(super) fn header(Revision(revision): Revision, body: &str) -> String {
    format!(
        "{MAGIC} {FORMAT} revision {revision} crc32 {:08x}\n",
        checksum(revision, body.as_bytes())
    )
}

/// Of the content together with the revision, which stands before it in the header.
pub(super) fn checksum(revision: u64, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&revision.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

pub(super) fn decode(file: PathBuf, bytes: &[u8]) -> Result<Desired, StoreError> {
    let end = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(bytes.len());
    let (header, body) = bytes.split_at(end);
    let body = body.get(1..).unwrap_or_default();
    let words: Vec<&str> = str::from_utf8(header).unwrap_or_default().split(' ').collect();
    let format = match words.as_slice() {
        [MAGIC, format, ..] => format.parse::<u32>().ok(),
        _ => None,
    };
    let Some(format) = format else {
        return Err(StoreError::Foreign { file });
    };
    if format > FORMAT {
        return Err(StoreError::Newer { file, format });
    }
    // A header of ours that is cut short cannot be checked: what it would have said is then as good as wrong.
    let numbers = match words.as_slice() {
        [_, _, "revision", revision, "crc32", sum] => {
            revision.parse().ok().zip(u32::from_str_radix(sum, 16).ok())
        }
        _ => None,
    };
    let (revision, expected) = numbers.unwrap_or_default();
    let actual = checksum(revision, body);
    if numbers.is_none() || actual != expected {
        return Err(StoreError::Damaged {
            file,
            expected,
            actual,
        });
    }
    let text = String::from_utf8_lossy(body);
    match config::parse(&text, &file.display().to_string()) {
        Ok(config) => Ok(Desired {
            revision: Revision(revision),
            ..config.desired
        }),
        Err(errors) => Err(StoreError::Content { file, errors }),
    }
}

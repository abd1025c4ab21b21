//! Configurations of other balancers.

use lb_import::{Kind, Source};
use lb_model::config;

/// Name of the file that each source may include: the source itself.
const AGAIN: &str = "again";

pub(crate) fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let any = ["192.0.2.1", "2001:db8::1"].map(|address| address.parse());
    let any: Vec<_> = any.into_iter().flatten().collect();
    for kind in [
        None,
        Some(Kind::Haproxy),
        Some(Kind::Keepalived),
        Some(Kind::Ipvs),
    ] {
        let imported = lb_import::import(Source {
            name: "source",
            text: &text,
            kind,
            addresses: &any,
            include: &|pattern, _| {
                if pattern == AGAIN {
                    Ok(Box::new([Ok((AGAIN.to_owned(), text.to_string()))].into_iter()))
                } else {
                    Err("no such file".to_owned())
                }
            },
        });
        let Ok(imported) = imported else { continue };
        match config::parse(&imported.toml, "imported") {
            Ok(config) => assert_eq!(config.desired.services.len(), imported.services, "{text}"),
            Err(errors) => panic!(
                "{kind:?}: {}\n{}\n{text}",
                errors
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join("\n"),
                imported.toml
            ),
        }
    }
}

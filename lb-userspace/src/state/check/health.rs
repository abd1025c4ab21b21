//! Health tables.

use super::{Findings, Place};
use crate::{
    config::duration::text,
    health::{
        MAX_BODY_LIMIT, MAX_INTERVAL, MIN_INTERVAL,
        settings::{CheckKind, CheckSettings, HttpCheck},
    },
};

impl Findings {
    pub(super) fn health(&mut self, index: usize, health: &CheckSettings) {
        let at = |key| Place::Health(index, key);
        let CheckSettings {
            kind,
            interval,
            fast_interval,
            down_interval_max,
            timeout,
            rise,
            fall,
            jitter,
            through,
            port,
        } = health;
        let sensible = MIN_INTERVAL..=MAX_INTERVAL;
        self.duration(at("interval"), "interval", *interval, sensible.clone());
        self.duration(
            at("fast_interval"),
            "fast_interval",
            *fast_interval,
            sensible.clone(),
        );
        self.duration(
            at("down_interval_max"),
            "down_interval_max",
            *down_interval_max,
            sensible.clone(),
        );
        self.duration(at("timeout"), "timeout", *timeout, sensible);
        if fast_interval > interval {
            let what = format!(
                "fast_interval {} is longer than interval {}",
                text(*fast_interval),
                text(*interval)
            );
            self.invalid(
                at("fast_interval"),
                what,
                "checks come faster while a verdict changes: make it the shorter one",
            );
        }
        if down_interval_max < interval {
            let what = format!(
                "down_interval_max {} is shorter than interval {}",
                text(*down_interval_max),
                text(*interval)
            );
            self.invalid(
                at("down_interval_max"),
                what,
                "checks come slower while a backend is down: make it the longer one",
            );
        }
        for (key, value) in [("rise", *rise), ("fall", *fall)] {
            if value == 0 {
                self.invalid(
                    at(key),
                    format!("{key} 0 would give a verdict without a check"),
                    "use 1 or more",
                );
            }
        }
        if !(0.0..=1.0).contains(jitter) {
            self.invalid(
                at("jitter"),
                format!("jitter {jitter} is not between 0 and 1"),
                "0.1 moves each check by up to 10 %",
            );
        }
        if *port == Some(0) {
            self.invalid(
                at("port"),
                "port 0 cannot be checked",
                "leave it out for the backend's own",
            );
        }
        self.available(at("through"), *through);
        match kind {
            CheckKind::None | CheckKind::Tcp => {}
            CheckKind::Http(http) => self.http(index, http),
        }
    }

    fn http(&mut self, index: usize, check: &HttpCheck) {
        let at = |key| Place::Health(index, key);
        let HttpCheck {
            method,
            path,
            host,
            headers,
            expect_status,
            expect_body,
            max_body,
        } = check;
        if !is_token(method) {
            self.invalid(
                at("method"),
                format!("{method:?} is no HTTP method"),
                "for example \"GET\" or \"HEAD\"",
            );
        }
        if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            self.invalid(
                at("path"),
                format!("{path:?} is no HTTP path"),
                "it begins with / and has no spaces",
            );
        }
        if host
            .as_ref()
            .is_some_and(|host| host.is_empty() || !host.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            self.invalid(
                at("host"),
                "the host is empty or has characters that no host name has",
                "leave it out for the backend's address",
            );
        }
        for (place, (name, value)) in headers.iter().enumerate() {
            if !is_token(name)
                || !value
                    .bytes()
                    .all(|byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f))
            {
                self.invalid(
                    at("headers"),
                    format!("{name:?} with value {value:?} is no HTTP header"),
                    "",
                );
            }
            if headers[..place]
                .iter()
                .any(|(other, _)| other.eq_ignore_ascii_case(name))
            {
                self.conflict(at("headers"), format!("header {name} is listed twice"), "");
            }
            if ["host", "connection", "content-length", "transfer-encoding"]
                .iter()
                .any(|own| name.eq_ignore_ascii_case(own))
            {
                self.invalid(
                    at("headers"),
                    format!("header {name} is set by the check itself"),
                    "the key host sets the Host header",
                );
            }
        }
        if expect_status.is_empty() {
            self.invalid(
                at("expect_status"),
                "without an expected status no check can succeed",
                "for example [200]",
            );
        }
        for status in expect_status
            .iter()
            .filter(|status| !(100..=599).contains(*status))
        {
            self.invalid(
                at("expect_status"),
                format!("{status} is no HTTP status"),
                "from 100 to 599",
            );
        }
        if let Some(Err(error)) = expect_body.as_deref().map(regex::bytes::Regex::new) {
            let what = format!(
                "expect_body is no regular expression: {}",
                error.to_string().replace('\n', " ")
            );
            self.invalid(at("expect_body"), what, "");
        }
        if *max_body > MAX_BODY_LIMIT || (*max_body == 0 && expect_body.is_some()) {
            self.invalid(
                at("max_body"),
                format!("max_body {max_body} is not between 1 and {MAX_BODY_LIMIT} bytes"),
                "",
            );
        }
    }
}

/// RFC 9110 section 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

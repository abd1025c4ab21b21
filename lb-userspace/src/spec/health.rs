//! Health checks in requests.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How backends are checked, with the keys of the configuration file.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthSpec {
    /// Kind: `none`, `tcp`, `http` and so on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Time between checks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
    /// Time between checks while changing state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fast_interval: Option<String>,
    /// Longest time between checks while down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub down_interval_max: Option<String>,
    /// Time after which a check has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// Successes that make a backend up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rise: Option<u32>,
    /// Failures that make a backend down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fall: Option<u32>,
    /// Share of the interval by which checks move at random.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<f64>,
    /// Falls within `flap_window` after which a backend is held down; 0: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flap_limit: Option<u32>,
    /// The time that these falls lie in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flap_window: Option<String>,
    /// Time for which its checks must succeed before it is up again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flap_hold: Option<String>,
    /// Whether failed flows make a backend suspect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passive: Option<bool>,
    /// Failed flows within `breaker_window` that take a backend out; 0: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker_failures: Option<u32>,
    /// The time that these lie in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker_window: Option<String>,
    /// Time after which it takes flows on trial.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker_open: Option<String>,
    /// `backend` or `vip`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub through: Option<String>,
    /// Port to check; the backend's own where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Source address of checks; the kernel's choice where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Mark of the packets of checks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mark: Option<u32>,
    /// Further checks made together with it: kinds with their keys, and ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(no_recursion)]
    pub also: Option<Vec<HealthSpec>>,
    /// How many of several checks must succeed: `all` or `any`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub require: Option<String>,
    /// PROXY header that connections begin with: `v1` or `v2`; none where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send_proxy: Option<String>,
    /// Whether connections are only begun, for `tcp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub half_open: Option<bool>,
    /// Text to send, for `tcp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send: Option<String>,
    /// The same in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send_hex: Option<String>,
    /// Text that must come, for `tcp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect: Option<String>,
    /// Bytes that must come, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect_hex: Option<String>,
    /// Regular expression that what comes must match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect_regex: Option<String>,
    /// Several steps of a dialogue, for `tcp`, instead of the five keys before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<Vec<StepSpec>>,
    /// Method, for HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Path, for HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Host header, for HTTP; authority, for `grpc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Further headers, for HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<BTreeMap<String, String>>,
    /// Statuses that count as success, for HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect_status: Option<StatusesSpec>,
    /// Regular expression that the body must match, for HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect_body: Option<String>,
    /// Bytes of the body that are read at most, for HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_body: Option<u32>,
    /// Whether the connection is kept for the next checks, for HTTP and `grpc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<bool>,
    /// Service asked about, for `grpc`; the server as a whole where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Whether kinds `http2` and `grpc` use TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<bool>,
    /// Whether the certificate must be valid, for kinds with TLS, as all up to `warn_before`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify: Option<bool>,
    /// Name that the certificate must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// PEM file of the only CAs to trust.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// PEM file of the client's certificate chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<String>,
    /// PEM file of the client's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
    /// Protocols of which the server must take one, for `tls`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpn: Option<Vec<String>>,
    /// Time before the expiry of a certificate from which on it is reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warn_before: Option<String>,
    /// Name asked for, for `dns`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Type of record asked for, for `dns`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
    /// `udp` or `tcp`, for `dns`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<String>,
    /// Content that one of the records must have, for `dns`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect_answer: Option<String>,
    /// Payload to send, for `udp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// Regular expression that the reply must match, for `udp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect_reply: Option<String>,
    /// Absolute path and arguments, for `exec`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// How long a report holds, for `push`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
}

/// A step of a dialogue: send, then wait for the expected answer.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StepSpec {
    /// Text to send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send: Option<String>,
    /// The same in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send_hex: Option<String>,
    /// Text that must come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect: Option<String>,
    /// Bytes that must come, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect_hex: Option<String>,
    /// Regular expression that what comes must match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect_regex: Option<String>,
}

/// HTTP statuses: one of [`StatusSpec`], or a list of them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum StatusesSpec {
    /// `204`, `"2xx"` or `"200-299"`
    One(StatusSpec),
    /// `[200, "3xx"]`
    List(Vec<StatusSpec>),
}

/// A status, or several as a text.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum StatusSpec {
    /// `200`
    One(u16),
    /// `"3xx"`, `"300-399"`, or several of these with commas between
    Text(String),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::{
        config::{export, fields::Keys},
        spec::ServiceSpec,
        state::testing,
    };

    proptest! {
        /// A request can set every key of a service: each key has its field, with the file's type.
        #[test]
        fn a_service_of_a_file_is_a_request(desired in testing::any_desired()) {
            let document: toml::Table = export(&desired, Keys::Whole).parse().unwrap();
            let services = document.get("service").and_then(toml::Value::as_array).cloned();
            for service in services.unwrap_or_default() {
                let mut table = service.as_table().unwrap().clone();
                table.remove("backend");
                let spec: ServiceSpec = table.clone().try_into().unwrap();
                prop_assert_eq!(toml::Table::try_from(&spec).unwrap(), table);
            }
        }
    }
}

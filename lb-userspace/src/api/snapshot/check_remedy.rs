//! What to do about a check that failed for a reason which has one remedy.

use crate::{
    health::{CertificateProblem, CheckError, LocalError},
    state::service::Service,
};

/// A command or change that mends it; `None` where the failure has many causes.
pub(super) fn of(service: &Service, error: &CheckError) -> Option<String> {
    let name = &service.name;
    let server = service
        .tls_checks()
        .find_map(|tls| tls.server_name.as_ref())
        .map_or_else(String::new, |name| format!(" -servername {name}"));
    let show = |target| {
        format!(
            "openssl s_client -connect {target}{server} </dev/null 2>/dev/null | openssl x509 -noout -subject -issuer -dates \
             -ext subjectAltName"
        )
    };
    match error {
        CheckError::Certificate { target, problem } => Some(match problem {
            CertificateProblem::Expired(_) => {
                format!("{} # shows what to renew on the server", show(target))
            }
            CertificateProblem::NotYetValid(_) => {
                "timedatectl set-ntp true # here, or where the certificate was made".to_owned()
            }
            CertificateProblem::WrongName { presented, .. } => match presented.first() {
                Some(presented) => format!("lb service set {name} --check-server-name {presented}"),
                None => format!("{} # shows that it has no name", show(target)),
            },
            CertificateProblem::UnknownIssuer => {
                format!(
                    "lb service set {name} --check-ca-file FILE # the CA that signed it: {}",
                    show(target)
                )
            }
            CertificateProblem::Unfit(_) | CertificateProblem::Other(_) => show(target),
        }),
        CheckError::Tls { target, reason } => Some(if reason.contains("client certificate") {
            format!("lb service set {name} --check-cert-file FILE --check-key-file FILE")
        } else {
            format!("openssl s_client -connect {target}{server} </dev/null # shows what it speaks")
        }),
        CheckError::Through { error, .. } => of(service, error),
        CheckError::Local { error, .. } => match error {
            LocalError::Descriptors => Some("LimitNOFILE=65536 in the unit".to_owned()),
            LocalError::Settings(_) => Some("lb doctor # looks at the files of the check".to_owned()),
            LocalError::Ping | LocalError::Mark => {
                Some("CAP_NET_RAW and CAP_NET_ADMIN in AmbientCapabilities of the unit".to_owned())
            }
            LocalError::Path(_) => Some(format!("lb service set {name} --check-through backend")),
            LocalError::NotPermitted => Some("nft list ruleset # shows what this machine forbids".to_owned()),
            LocalError::Family
            | LocalError::Ports
            | LocalError::Memory
            | LocalError::NoReport
            | LocalError::Late(_)
            | LocalError::Aborted => None,
        },
        CheckError::Refused(_)
        | CheckError::TimedOut { .. }
        | CheckError::Reset { .. }
        | CheckError::Closed { .. }
        | CheckError::Unreachable { .. }
        | CheckError::Connection { .. }
        | CheckError::Status { .. }
        | CheckError::NotHttp { .. }
        | CheckError::Endless { .. }
        | CheckError::Http2 { .. }
        | CheckError::Grpc { .. }
        | CheckError::Protocol { .. }
        | CheckError::Answer { .. }
        | CheckError::NoEcho { .. }
        | CheckError::IcmpError { .. }
        | CheckError::Reported { .. }
        | CheckError::Expired { .. }
        | CheckError::Command { .. }
        | CheckError::Body { .. } => None,
    }
}

//! Certificates of this machine: those that checks trust and show, and those of the admin API.

use std::{path::Path, time::SystemTime};

use crate::{
    doctor::{
        facts::Facts,
        finding::{Finding, Level},
        pem::PemProblem,
        setup::{CertificateUse, Setup, UsedBy},
    },
    events::rfc3339,
    health::CertificateFacts,
};

const DAY: u64 = 86_400;
/// Sets the clock by the network, with systemd.
pub(super) const SET_CLOCK: &str = "timedatectl set-ntp true";

pub(in super::super) fn all(setup: &Setup, facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for used in setup.certificate_uses() {
        let mut found = of_use(facts, &used);
        if found.is_empty()
            && let Some(end) = ends(facts, &used).min()
        {
            let message = format!(
                "certificates are in order, the first one expires at {}",
                rfc3339(end)
            );
            found.push(Finding::ok("certificate", &used.subject, message));
        }
        findings.extend(found);
    }
    if !facts.pem.has_system_cas {
        let message = "this machine trusts no CA, and checks without ca_file need one: they cannot be made";
        findings.push(
            Finding::fail("certificate_file", "machine", message)
                .remedy("apt-get install ca-certificates")
                .remedy("set ca_file of the checks"),
        );
    }
    findings
}

/// Ends of the certificates of a use.
fn ends<'a>(facts: &'a Facts, used: &CertificateUse) -> impl Iterator<Item = SystemTime> + 'a {
    let files = [
        used.authorities.clone(),
        used.pair.clone().map(|(certificate, _)| certificate),
    ];
    files
        .into_iter()
        .flatten()
        .filter_map(|file| facts.pem.certificates.get(&file)?.as_ref().ok())
        .flatten()
        .filter_map(|certificate| certificate.not_after)
}

fn of_use(facts: &Facts, used: &CertificateUse) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(file) = &used.authorities {
        match facts.pem.certificates.get(file) {
            Some(Ok(found)) => findings.extend(authorities(facts, used, file, found)),
            Some(Err(problem)) => findings.push(unusable(used, file, problem)),
            None => {}
        }
    }
    if let Some(file) = &used.lists {
        match facts.pem.lists.get(file) {
            Some(Ok(end)) => findings.extend(outdated(facts.pem.now, used, file, *end)),
            Some(Err(problem)) => findings.push(unusable(used, file, problem)),
            None => {}
        }
    }
    let Some((certificate, key)) = &used.pair else {
        return findings;
    };
    match facts.pem.certificates.get(certificate) {
        Some(Ok(found)) => findings.extend(own(facts, used, certificate, found)),
        Some(Err(problem)) => findings.push(unusable(used, certificate, problem)),
        None => {}
    }
    if let Some(problem) = facts.pem.keys.get(key) {
        findings.push(unusable(used, key, problem));
    }
    if let Some(why) = facts.pem.misfits.get(&(certificate.clone(), key.clone())) {
        let (certificate, key) = (certificate.display(), key.display());
        let message = format!("{key} is not the key of {certificate} ({why}): {}", used.effect());
        findings.push(
            Finding::fail("certificate_key", &used.subject, message)
                .remedy(format!("name the key that {certificate} was made with"))
                .remedy(format!(
                    "openssl x509 -in {certificate} -noout -pubkey; openssl pkey -in {key} -pubout # must be the same"
                )),
        );
    }
    findings
}

/// A file that cannot be used.
fn unusable(used: &CertificateUse, file: &Path, problem: &PemProblem) -> Finding {
    let (name, effect) = (file.display(), used.effect());
    let fail = |message: String| Finding::fail("certificate_file", &used.subject, message);
    match problem {
        PemProblem::Missing => fail(format!("{name} does not exist: {effect}")).remedy(format!(
            "put the file there, or name another one in {}",
            used.keys()
        )),
        PemProblem::Denied {
            user,
            group,
            directory,
        } => {
            let what = match directory {
                Some(directory) => format!("enter {}", directory.display()),
                None => format!("read {name}"),
            };
            let finding = fail(format!("the daemon's user ({user}) may not {what}: {effect}"));
            match directory {
                Some(directory) => finding.remedy(format!("chmod o+x {}", directory.display())),
                None => finding.remedy(format!("chgrp {group} {name} && chmod g+r {name}")),
            }
        }
        PemProblem::Unseen => Finding::warn(
            "certificate_file",
            &used.subject,
            format!("{name} may not be read by this user: it was not looked at"),
        )
        .remedy("run `lb doctor` as root, for example with sudo"),
        PemProblem::Unreadable(why) => fail(format!("{name} cannot be read: {why}: {effect}")).remedy(
            format!("put a good file there, or name another one in {}", used.keys()),
        ),
        PemProblem::NotPem { is_der } => {
            let finding = fail(format!("{name} is not PEM: {effect}"));
            let finding = if *is_der {
                finding.remedy(format!(
                    "openssl x509 -inform der -in {name} -out {name}.pem # and name that one in {}",
                    used.keys()
                ))
            } else {
                finding
            };
            finding.remedy("a PEM file has lines that begin with -----BEGIN")
        }
        PemProblem::Empty => fail(format!(
            "{name} has no certificate, key or list of the wanted kind: {effect}"
        ))
        .remedy(format!(
            "openssl storeutl -noout -text {name} # lists what is in it"
        )),
    }
}

/// Certificates that the machine shows: its first certificate and those of its chain.
fn own(facts: &Facts, used: &CertificateUse, file: &Path, found: &[CertificateFacts]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = found
        .iter()
        .filter_map(|certificate| dates(facts.pem.now, used, file, certificate))
        .collect();
    let Some(first) = found.first() else {
        return findings;
    };
    let (fits, wanted, usage) = match used.by {
        UsedBy::Check => (first.for_clients, "client", "clientAuth"),
        UsedBy::Api => (first.for_servers, "server", "serverAuth"),
    };
    if !fits {
        let message = format!(
            "{} is not for use as a {wanted} certificate (extended key usage): it may be refused",
            file.display()
        );
        findings.push(
            Finding::warn("certificate_usage", &used.subject, message).remedy(format!(
                "a certificate with extendedKeyUsage = {usage}, or without that extension"
            )),
        );
    }
    findings
}

/// Certificates that are trusted. Of several, one that is good is enough.
fn authorities(
    facts: &Facts,
    used: &CertificateUse,
    file: &Path,
    found: &[CertificateFacts],
) -> Option<Finding> {
    if !found.iter().any(|certificate| certificate.is_ca) && used.by == UsedBy::Api {
        let message = format!(
            "{} has no certificate of a CA: no client's certificate can be signed by it",
            file.display()
        );
        return Some(
            Finding::warn("certificate_usage", &used.subject, message)
                .remedy("name the file of the CA that signed the clients' certificates in api_ca_file"),
        );
    }
    let mut problems = found
        .iter()
        .map(|certificate| dates(facts.pem.now, used, file, certificate));
    let worst = problems.try_fold(None, |worst, problem| {
        problem.map(|problem| worst.or(Some(problem)))
    })??;
    // Dates of a trusted CA are not verified, those of a server's own certificate are.
    let level = if found.iter().any(|certificate| certificate.is_ca) {
        Level::Warn
    } else {
        worst.level
    };
    Some(Finding { level, ..worst })
}

/// A revocation list that should have been replaced: it stays in force.
fn outdated(now: SystemTime, used: &CertificateUse, file: &Path, end: Option<SystemTime>) -> Option<Finding> {
    let end = end.filter(|end| *end <= now)?;
    let file = file.display();
    let message = format!(
        "the revocation list {file} is out of date since {}: certificates revoked since then are not refused",
        rfc3339(end)
    );
    let renew = format!(
        "put a new list of the authority into {file}: {} reads the file again",
        used.reread()
    );
    Some(Finding::warn("certificate", &used.subject, message).remedy(renew))
}

/// Whether a certificate is valid now, and for how long.
fn dates(
    now: SystemTime,
    used: &CertificateUse,
    file: &Path,
    certificate: &CertificateFacts,
) -> Option<Finding> {
    let name = match certificate.names.first() {
        Some(name) => format!("{} ({name})", file.display()),
        None => file.display().to_string(),
    };
    let finding = |message: String| Finding::fail("certificate", &used.subject, message);
    if let Some(begin) = certificate.not_before.filter(|begin| now < *begin) {
        let message = format!(
            "{name} is not valid before {}, and this machine's clock says {}",
            rfc3339(begin),
            rfc3339(now)
        );
        return Some(finding(message).remedy(SET_CLOCK));
    }
    let end = certificate.not_after?;
    let renew = format!("renew it: {} reads the file again", used.reread());
    match end.duration_since(now) {
        Err(_) => Some(finding(format!("{name} has expired at {}", rfc3339(end))).remedy(renew)),
        Ok(left) if left < used.warn_before => {
            let days = left.as_secs() / DAY;
            let message = format!("{name} expires in {days} days, at {}", rfc3339(end));
            Some(Finding::warn("certificate", &used.subject, message).remedy(renew))
        }
        Ok(_) => None,
    }
}

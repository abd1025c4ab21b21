//! Several checks of one target in one: all of them or any of them must succeed.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::Instant};

use super::through::Through;
use crate::{
    error::{CheckError, LocalError},
    probe::{
        checker::Checker,
        kind::{Probe, ProbeCache},
    },
    probe_route::{CheckPath, Paths},
    settings::{CheckSettings, Require, Through as Way},
    status::{Certificate, PartResult},
    word,
};

/// The result of a check, and for a composite check, the result of each part.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Found {
    /// Of all together.
    pub(crate) outcome: Result<(), CheckError>,
    /// Of each; none where there is only one.
    pub(crate) parts: Arc<[PartResult]>,
    /// The first certificate to expire.
    pub(crate) certificate: Option<Certificate>,
    /// Whether the target answers on one connection at a time only.
    pub(crate) serves_one: bool,
}

/// A check with the checks made together with it.
#[derive(Debug)]
pub(crate) struct Probes {
    first: Arc<Part>,
    also: Vec<Arc<Part>>,
    require: Require,
}

#[derive(Debug)]
struct Part {
    /// Its kind, and its port where that is its own.
    what: Arc<str>,
    port: Option<u16>,
    probe: Probe,
    /// The way through the forwarding path, if it goes there.
    through: Option<Through>,
}

impl Part {
    /// Makes the check.
    async fn check(self: Arc<Self>, mut target: SocketAddr, timeout: Duration) -> PartResult {
        if let Some(port) = self.port {
            target.set_port(port);
        }
        let started = Instant::now();
        let outcome = match &self.through {
            None => self.probe.check(target, timeout).await.map(drop),
            Some(through) => {
                let check = |target| self.probe.check(target, timeout);
                through.lead(self.port, check).await.map(drop)
            }
        };
        PartResult {
            what: Arc::clone(&self.what),
            outcome,
            latency: started.elapsed(),
        }
    }
}

impl Probes {
    /// A single check.
    pub(crate) fn one(probe: Probe) -> Self {
        let part = Part {
            what: "".into(),
            port: None,
            probe,
            through: None,
        };
        Self {
            first: Arc::new(part),
            also: Vec::new(),
            require: Require::All,
        }
    }

    /// All checks of `settings`, by the path given if there is one.
    pub(crate) fn by(
        settings: &CheckSettings,
        cache: &mut ProbeCache,
        by: Option<(&Arc<dyn Paths>, CheckPath)>,
    ) -> Self {
        let mut probe = |settings: &CheckSettings| match by {
            None => (cache.probe(settings), None),
            Some((paths, path)) => {
                let through = Through::new(Arc::clone(paths), path, settings.source);
                // The check itself is the same; the route has the source.
                let here = CheckSettings {
                    through: Way::Backend,
                    source: None,
                    ..settings.clone()
                };
                (cache.probe(&here), Some(through))
            }
        };
        let (first, through) = probe(settings);
        let first = Part {
            what: word::kind(&settings.kind).into(),
            // Of a path, the port is the service's, but where that is any.
            port: settings.port.filter(|_| through.is_some()),
            probe: first,
            through,
        };
        let also = settings.also.iter().map(|further| {
            let what = word::kind(&further.kind);
            let alone = CheckSettings {
                kind: further.kind.clone(),
                send_proxy: further.send_proxy,
                also: Vec::new(),
                ..settings.clone()
            };
            let (probe, through) = probe(&alone);
            Arc::new(Part {
                what: further
                    .port
                    .map_or_else(|| what.into(), |port| format!("{what} {port}").into()),
                port: further.port.or(settings.port.filter(|_| through.is_some())),
                probe,
                through,
            })
        });
        Self {
            first: Arc::new(first),
            also: also.collect(),
            require: settings.require,
        }
    }

    /// Has the next check use new connections.
    pub(crate) fn renew(&self) {
        for part in [&self.first].into_iter().chain(&self.also) {
            part.probe.renew();
        }
    }

    /// Makes all checks at once and waits for each, so that all results can be shown.
    pub(crate) async fn check(&self, target: SocketAddr, timeout: Duration) -> Found {
        if self.also.is_empty() {
            let PartResult { outcome, .. } = Arc::clone(&self.first).check(target, timeout).await;
            return Found {
                outcome,
                parts: Arc::default(),
                certificate: self.first.probe.certificate(),
                serves_one: self.first.probe.serves_one(),
            };
        }
        let parts: Vec<&Arc<Part>> = [&self.first].into_iter().chain(&self.also).collect();
        let mut running = JoinSet::new();
        for (place, part) in parts.iter().enumerate() {
            let check = Arc::clone(part).check(target, timeout);
            running.spawn(async move { (place, check.await) });
        }
        let mut results: Vec<PartResult> = parts.iter().map(|part| aborted(part, target)).collect();
        while let Some(joined) = running.join_next().await {
            // A part that panicked keeps its result from above.
            if let Ok((place, result)) = joined {
                results[place] = result;
            }
        }
        Found {
            outcome: together(self.require, &results),
            parts: results.into(),
            certificate: parts.iter().filter_map(|part| part.probe.certificate()).min(),
            serves_one: parts.iter().any(|part| part.probe.serves_one()),
        }
    }
}

fn aborted(part: &Part, target: SocketAddr) -> PartResult {
    PartResult {
        what: Arc::clone(&part.what),
        outcome: Err(CheckError::Local {
            target,
            error: LocalError::Aborted,
        }),
        latency: Duration::ZERO,
    }
}

/// Combines results. A local error decides nothing, and the whole is a local error if that part could have changed the
/// result.
fn together(require: Require, results: &[PartResult]) -> Result<(), CheckError> {
    let errors = || results.iter().filter_map(|part| part.outcome.as_ref().err());
    let failed = errors().find(|error| !error.is_local());
    let unmade = errors().find(|error| error.is_local());
    let success = results.iter().any(|part| part.outcome.is_ok());
    let error = match require {
        Require::All => failed.or(unmade),
        Require::Any if success => None,
        Require::Any => unmade.or(failed),
    };
    error.map_or(Ok(()), |error| Err(error.clone()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use socket2::{Domain, Type};

    use super::*;
    use crate::{
        settings::{CheckKind, FurtherCheck},
        status::LastCheck,
    };

    /// The operator must see which of the checks fails, and each must go where it belongs.
    #[tokio::test]
    async fn each_check_goes_to_its_port_and_shows_its_own_result() {
        let plenty = Duration::from_secs(60);
        let open = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = open.local_addr().unwrap();
        // A bound socket that does not listen refuses connections and reserves the port.
        let closed = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        closed
            .bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into())
            .unwrap();
        let refusing = closed.local_addr().unwrap().as_socket().unwrap();
        let settings = |require| CheckSettings {
            kind: CheckKind::Tcp,
            also: vec![FurtherCheck {
                kind: CheckKind::TcpHalfOpen,
                port: Some(refusing.port()),
                send_proxy: None,
            }],
            require,
            ..CheckSettings::default()
        };
        for (require, expected) in [
            (Require::All, Err(CheckError::Refused(refusing))),
            (Require::Any, Ok(())),
        ] {
            let probes = Probes::by(&settings(require), &mut ProbeCache::default(), None);
            let Found { outcome, parts, .. } = probes.check(target, plenty).await;
            assert_eq!(outcome, expected, "{require:?}");
            let [main, also] = &parts[..] else {
                panic!("{parts:?}")
            };
            assert_eq!((&*main.what, main.outcome.clone()), ("tcp", Ok(())));
            let last = LastCheck {
                outcome,
                latency: plenty,
                at: std::time::UNIX_EPOCH,
                parts: Arc::clone(&parts),
                certificate: None,
                serves_one: false,
            };
            let name = format!("tcp {}", refusing.port());
            assert_eq!(
                (&*also.what, also.outcome.clone()),
                (&*name, Err(CheckError::Refused(refusing)))
            );
            let words = format!("{name}: connection refused by {refusing}");
            assert_eq!(last.detail(), if last.ok() { "ok" } else { &words });
        }
    }

    /// All results of two checks by both rules: g good, b bad, l could not be made.
    #[test]
    fn results_combine_by_the_rule() {
        let target: SocketAddr = "10.0.0.11:80".parse().unwrap();
        let result = |letter| PartResult {
            what: "tcp".into(),
            outcome: match letter {
                'g' => Ok(()),
                'b' => Err(CheckError::Refused(target)),
                _ => Err(CheckError::Local {
                    target,
                    error: LocalError::Memory,
                }),
            },
            latency: Duration::ZERO,
        };
        for (letters, all, any) in [
            ("gg", 'g', 'g'),
            ("gb", 'b', 'g'),
            ("bg", 'b', 'g'),
            ("bb", 'b', 'b'),
            ("gl", 'l', 'g'),
            ("lg", 'l', 'g'),
            ("bl", 'b', 'l'),
            ("lb", 'b', 'l'),
            ("ll", 'l', 'l'),
        ] {
            let results: Vec<_> = letters.chars().map(result).collect();
            for (require, expected) in [(Require::All, all), (Require::Any, any)] {
                let got = match together(require, &results) {
                    Ok(()) => 'g',
                    Err(error) if error.is_local() => 'l',
                    Err(_) => 'b',
                };
                assert_eq!(got, expected, "{letters} {require:?}");
            }
        }
    }
}

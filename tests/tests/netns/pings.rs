//! Checks of kind icmp over real sockets: with a raw socket, with the kernel's ping socket, and without the right to either.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Result, ensure};
use lb_tests::{lane::Lane, netns::Netns};
use lb_userspace::health::{CheckError, Checker, IcmpChecker, LocalError, Route};

/// Longer than any stall of the machine.
const PLENTY: Duration = Duration::from_secs(30);
/// For unused addresses: passes without an answer.
const SHORT: Duration = Duration::from_millis(200);
/// The user `nobody`.
const NOBODY: libc::uid_t = 65_534;

/// A client and a router with a black hole behind it.
struct Pair {
    client: Netns,
    _router: Netns,
}

fn pair() -> Result<Pair> {
    let (client, router) = (Netns::new("pinger")?, Netns::new("router")?);
    client.ip(&format!(
        "link add out type veth peer name in netns {router}
         addr add 10.1.0.1/24 dev out
         addr add 10.1.0.3/24 dev out
         addr add fd01::1/64 dev out
         link set out up",
        router = router.name()
    ))?;
    router.sysctl("net/ipv4/ip_forward", "1")?;
    router.sysctl("net/ipv6/conf/all/forwarding", "1")?;
    // Its errors must not be held back: they are few.
    router.sysctl("net/ipv4/icmp_ratelimit", "0")?;
    router.sysctl("net/ipv6/icmp/ratelimit", "0")?;
    router.ip("addr add 10.1.0.2/24 dev in
         addr add fd01::2/64 dev in
         link set in up
         route add blackhole 10.9.0.0/24
         route add prohibit 10.8.0.0/24")?;
    client.wait_for_addresses()?;
    router.wait_for_addresses()?;
    client.ip("route add default via 10.1.0.2\nroute add default via fd01::2")?;
    Ok(Pair {
        client,
        _router: router,
    })
}

fn ping(ns: &Netns, checker: IcmpChecker, target: &str, timeout: Duration) -> Result<Result<(), CheckError>> {
    let target = SocketAddr::new(target.parse()?, 80);
    ns.enter(|| check(checker, target, timeout))?
}

fn check(checker: IcmpChecker, target: SocketAddr, timeout: Duration) -> Result<Result<(), CheckError>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(checker.check(target, timeout)).map(drop))
}

#[test]
fn pings_are_answered_or_refused_by_name_with_either_socket() -> Result<()> {
    let _lane = Lane::shared()?;
    let pair = pair()?;
    let plain = IcmpChecker::default();
    // "1 0" is no group at all, the kernel's default: then the raw socket serves. Group 0 is root's.
    for groups in ["1 0", "0 0"] {
        pair.client.sysctl("net/ipv4/ping_group_range", groups)?;
        let from = |address: &str| -> Result<IcmpChecker> {
            Ok(plain.with_route(Route {
                source: Some(address.parse()?),
                mark: Some(7),
                proxy: None,
            }))
        };
        for (checker, target) in [
            (plain, "10.1.0.2"),
            (from("10.1.0.3")?, "10.1.0.2"),
            (plain, "fd01::2"),
            (from("fd01::1")?, "fd01::2"),
            (plain, "127.0.0.1"),
            (plain, "::1"),
        ] {
            let result = ping(&pair.client, checker, target, PLENTY)?;
            ensure!(result == Ok(()), "groups {groups}: {target}: {result:?}");
        }
        for (target, says, expected) in [
            ("10.7.0.1", "10.1.0.2", "network unreachable"),
            ("10.8.0.1", "10.1.0.2", "administratively prohibited"),
            ("fd07::1", "fd01::2", "no route"),
            // Unused address: this machine itself reports it unreachable.
            ("10.1.0.9", "10.1.0.1", "host unreachable"),
        ] {
            let target: IpAddr = target.parse()?;
            let from: IpAddr = says.parse()?;
            let result = ping(&pair.client, plain, &target.to_string(), PLENTY)?;
            let expected = CheckError::IcmpError {
                target,
                from,
                words: expected.into(),
            };
            ensure!(result == Err(expected), "groups {groups}: {target}: {result:?}");
        }
        let silent = ping(&pair.client, plain, "10.9.0.1", SHORT)?;
        ensure!(
            matches!(silent, Err(CheckError::NoEcho { .. })),
            "groups {groups}: {silent:?}"
        );
    }
    Ok(())
}

/// A source address that this machine has not, or of the other family, must not count against the target.
#[test]
fn local_errors_are_named_and_count_against_no_target() -> Result<()> {
    let _lane = Lane::shared()?;
    let ns = Netns::new("pinger")?;
    let target: SocketAddr = "127.0.0.1:80".parse()?;
    let local = |source: Option<&str>, mark| -> Result<LocalError> {
        let route = Route {
            source: source.map(str::parse).transpose()?,
            mark,
            proxy: None,
        };
        let result = ns.enter(|| check(IcmpChecker::default().with_route(route), target, PLENTY))??;
        match result {
            Err(CheckError::Local { error, .. }) => Ok(error),
            other => anyhow::bail!("{other:?}"),
        }
    };
    ensure!(local(Some("192.0.2.1"), None)? == LocalError::Ports);
    ensure!(local(Some("::1"), None)? == LocalError::Family);

    let as_nobody = |mark| -> Result<_> {
        let checker = IcmpChecker::default().with_route(Route {
            mark,
            ..Route::default()
        });
        ns.enter(|| {
            // SAFETY: the system call changes the ids of this thread only, which ends after the check.
            let changed = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
            ensure!(changed == 0, "setresuid: {}", std::io::Error::last_os_error());
            check(checker, target, PLENTY)
        })?
    };
    let lacks = |error| Err(CheckError::Local { target, error });
    let without = as_nobody(None)?;
    ensure!(without == lacks(LocalError::Ping), "{without:?}");
    // Our user is still in root's group.
    ns.sysctl("net/ipv4/ping_group_range", "0 0")?;
    ensure!(as_nobody(None)? == Ok(()));
    let marked = as_nobody(Some(7))?;
    ensure!(marked == lacks(LocalError::Mark), "{marked:?}");
    Ok(())
}

//! ICMP errors about a flow reach the right end, and unmatched packets stay unchanged.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lb_tests::{
    capture::Capture,
    client::{http_requests, run_many},
    config::Service,
    daemon::Daemon,
    http::{self, HttpServer},
    lane::Lane,
    netns::Netns,
    ping::ping,
    site::{HTTP_PORT, Site},
    topology::{Family, Shape, veth},
    udp::{UdpEcho, echo_once, open, udp_flows},
    wait,
};

/// A closed port.
const CLOSED_PORT: u16 = 9;

#[test]
fn a_closed_port_of_a_backend_refuses_the_clients_socket() -> Result<()> {
    let _lane = Lane::shared()?;
    for shape in [Shape::OneArmed, Shape::TwoArmed, Shape::Routed] {
        let site = Site::new(shape, 1)?;
        let address = |family| SocketAddr::new(site.net.vip(family, 10), 53);
        let services = Family::BOTH.map(|family| {
            let name = format!("dns-{}", family.keyword());
            Service::udp(&name, address(family)).backend(
                "b0",
                site.net.backends[0].socket(family, CLOSED_PORT),
                1,
            )
        });
        let targets = Family::BOTH.map(address);
        let site = site.start(&services)?;
        for target in targets {
            let capture = Capture::start(&site.net.client.ns, "eth0", |f| matches!(f.protocol, 1 | 58))?;
            let socket = site.net.client.ns.enter(|| open(target, 0))??;
            let error = echo_once(&socket, 1).err().map(|e| e.kind());
            assert_eq!(error, Some(ErrorKind::ConnectionRefused), "{shape:?} {target}");
            // Stopping judges the checksums of the translated error.
            capture.stop()?;
        }
    }
    Ok(())
}

#[test]
fn a_client_that_went_away_refuses_the_backends_socket() -> Result<()> {
    let _lane = Lane::shared()?;
    for family in Family::BOTH {
        let site = Site::new(Shape::TwoArmed, 1)?;
        let target = SocketAddr::new(site.net.vip(family, 10), 53);
        let backend = site.net.backends[0].socket(family, 53);
        let server = site.net.backends[0].ns.enter(|| UdpSocket::bind(backend))??;
        server.set_read_timeout(Some(Duration::from_millis(200)))?;
        let site = site.start(&[Service::udp("dns", target).backend("b0", backend, 1)])?;
        let client = site.net.client.ns.enter(|| open(target, 0))??;
        client.send(b"question")?;
        let mut buffer = [0; 64];
        let (_, from) = wait::until("the question", Duration::from_secs(5), || {
            Ok(server.recv_from(&mut buffer).ok())
        })?;
        drop(client);
        server.connect(from)?;
        // A program that another test starts holds a copy of the socket until it runs.
        wait::until_true(
            &format!("{family:?}: the server's socket is refused"),
            Duration::from_secs(10),
            || {
                let answer = server.send(b"answer").and_then(|_| server.recv(&mut buffer));
                Ok(answer.is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused))
            },
        )?;
    }
    Ok(())
}

/// A locally administered address that no device of the network has.
const OTHER_MAC: &str = "02:00:00:00:0a:77";

#[test]
fn frames_for_another_machine_are_left_alone_until_a_device_here_has_their_address() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Site::new(Shape::TwoArmed, 1)?;
    let echo = site.echo_service(Family::V4, &[1]);
    let site = site.start(&[echo])?;
    let target = site.service_address(Family::V4);
    let (client, lb) = (&site.net.client.ns, &site.net.lb.ns);
    client.ip(&format!(
        "neigh replace 10.1.0.1 lladdr {OTHER_MAC} dev eth0 nud permanent"
    ))?;
    let socket = client.enter(|| open(target, 0))??;
    let foreign = || -> Result<u64> {
        let metrics = site.daemon.metrics()?;
        Ok(metrics.count("lb_passes_total", &[("reason", "other_host")]))
    };
    // Waits for the reason of each datagram.
    let ignored = |device: &str| {
        let before = foreign()?;
        wait::until_true(device, Duration::from_secs(10), || {
            socket.send(b"ignored 0")?;
            Ok(foreign()? > before)
        })
    };
    let served = |device: &str| {
        wait::until_true(device, Duration::from_secs(10), || {
            Ok(echo_once(&socket, 1).is_ok())
        })
    };
    ignored("an address of no device")?;
    let packets = site
        .daemon
        .metrics()?
        .count("lb_service_packets_total", &[("service", "echo4")]);
    ensure!(packets == 0, "{packets} packets for another machine were taken");

    lb.ip(&format!(
        "link add link front name above address {OTHER_MAC} type macvlan"
    ))?;
    served("a macvlan")?;
    lb.ip("link del above")?;
    ignored("a removed macvlan")?;
    lb.ip(&format!(
        "link add br0 address {OTHER_MAC} type bridge\nlink set br0 up\nlink set front master br0"
    ))?;
    served("the bridge that the interface is a port of")?;
    lb.ip("link del br0")?;
    ignored("a removed bridge")?;
    lb.ip(&format!("link set front address {OTHER_MAC}"))?;
    served("the interface itself")
}

#[test]
fn mtu_of_a_narrow_link_behind_the_balancer_reaches_the_client() -> Result<()> {
    let _lane = Lane::shared()?;
    for family in Family::BOTH {
        let site = Site::new(Shape::Routed, 1)?;
        site.net.middle.ip("link set br0 mtu 1400")?;
        let echo = site.echo_service(family, &[1]);
        let site = site.start(&[echo])?;
        let target = site.service_address(family);
        let socket = site.net.client.ns.enter(|| open(target, 0))??;
        never_fragment(&socket, family)?;
        echo_once(&socket, 1)?;
        socket.send(&[0; 1440])?;
        wait::until_true("the path's MTU is known", Duration::from_secs(5), || {
            Ok(path_mtu(&socket, family)? == 1400)
        })
        .with_context(|| {
            format!(
                "{family:?}: the client believes in {:?}",
                path_mtu(&socket, family)
            )
        })?;
    }
    Ok(())
}

fn never_fragment(socket: &UdpSocket, family: Family) -> io::Result<()> {
    let (level, name, value) = match family {
        Family::V4 => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO),
        Family::V6 => (
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU_DISCOVER,
            libc::IPV6_PMTUDISC_DO,
        ),
    };
    // SAFETY: the value is an int that lives for the call, and its size is given.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), 4) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn path_mtu(socket: &UdpSocket, family: Family) -> io::Result<i32> {
    let (level, name) = match family {
        Family::V4 => (libc::IPPROTO_IP, libc::IP_MTU),
        Family::V6 => (libc::IPPROTO_IPV6, libc::IPV6_MTU),
    };
    let (mut value, mut length): (i32, libc::socklen_t) = (0, 4);
    // SAFETY: value and length live for the call; the option is an int.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(value)
    } else {
        Err(io::Error::last_os_error())
    }
}

#[test]
fn traffic_that_is_not_ours_is_untouched() -> Result<()> {
    let _lane = Lane::shared()?;
    for mode in ["native", "generic"] {
        let mut site = Site::new(Shape::TwoArmed, 1)?;
        let services = Family::BOTH
            .map(|f| [site.web(f, &[1]), site.echo_service(f, &[1])])
            .concat();
        site.net.forward_in_kernel()?;
        site.daemon = site.daemon.args(&format!("--xdp-mode {mode}"));
        let site = site.start(&services)?;
        for family in Family::BOTH {
            not_ours(&site, family).with_context(|| format!("{mode} {family:?}"))?;
        }
        let metrics = site.daemon.metrics()?;
        assert_eq!(metrics.sum("lb_drops_total", &[]), 0.0, "{}", metrics.text);
        assert_eq!(metrics.sum("lb_service_packets_total", &[]), 0.0);
    }
    Ok(())
}

fn not_ours(site: &Site, family: Family) -> Result<()> {
    let (client, lb, backend) = (&site.net.client, &site.net.lb, &site.net.backends[0]);
    let vip = site.net.vip(family, 10);
    for target in [vip, lb.ip(family), backend.ip(family)] {
        ping(&client.ns, target)?;
    }
    ping(&lb.ns, client.ip(family))?;

    // A server binds the VIP, which is local by a route alone.
    lb.ns.sysctl("net/ipv6/ip_nonlocal_bind", "1")?;
    // As an administrator's session to the balancer itself, and another service of its kernel on the VIP.
    let own = [
        SocketAddr::new(lb.ip(family), 22),
        SocketAddr::new(vip, 22),
        SocketAddr::new(vip, 8443),
    ];
    let _ssh = HttpServer::start(&lb.ns, "lb", &own)?;
    for target in own {
        http_requests(&client.ns, target, 20_000, 20, 4)?.ensure_complete(20)?;
    }

    // From the balancer outwards, with source ports that translated clients could have.
    let outside = SocketAddr::new(client.ip(family), HTTP_PORT);
    let _outside = HttpServer::start(&client.ns, "outside", &[outside])?;
    http_requests(&lb.ns, outside, 20_000, 20, 4)?.ensure_complete(20)?;

    // Through its kernel, past any service.
    http_requests(&client.ns, backend.socket(family, HTTP_PORT), 21_000, 20, 4)?.ensure_complete(20)?;

    // Datagrams in fragments to the balancer's own socket.
    let large = SocketAddr::new(lb.ip(family), 7007);
    let _echo = UdpEcho::start(&lb.ns, "lb", &[large])?;
    udp_flows(&client.ns, large, 22_000, 20, 4)?.ensure_complete(20)?;
    let report = run_many(&client.ns, 5, 1, |_| {
        let socket = open(large, 0)?;
        // The echo answers datagrams that fit its buffer, so 1,900 bytes: two fragments each way.
        socket.send(&[7; 1900])?;
        let mut buffer = [0; 2048];
        let length = socket.recv(&mut buffer)?;
        Ok(format!("{length}"))
    })?;
    report.ensure_complete(5)?;
    assert_eq!(report.answers_of("1903"), 5, "\"lb \" and all that was sent");
    Ok(())
}

#[test]
fn packets_are_routed_with_one_hop_less() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Site::new(Shape::OneArmed, 1)?;
    let services = Family::BOTH.map(|f| site.web(f, &[1]));
    let site = site.start(&services)?;
    for family in Family::BOTH {
        let (vip, backend) = (
            site.service_address(family),
            site.net.backends[0].socket(family, HTTP_PORT),
        );
        let there = Capture::start(&site.net.backends[0].ns, "eth0", move |f| {
            f.destination == backend
        })?;
        let back = Capture::start(&site.net.client.ns, "eth0", move |f| f.source == vip)?;
        http_requests(&site.net.client.ns, vip, 20_000, 10, 1)?.ensure_complete(10)?;
        for captured in there.stop()?.into_iter().chain(back.stop()?) {
            assert_eq!(captured.frame.ttl, 63, "{captured:?}");
        }
    }
    Ok(())
}

#[test]
fn replies_take_the_clients_way_independent_of_routes() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Site::new(Shape::TwoArmed, 1)?;
    let services = Family::BOTH.map(|f| site.web(f, &[1]));
    let site = site.start(&services)?;
    // A client's network without a route on the balancer: only the last hop gives the way back.
    site.net
        .client
        .ns
        .ip("addr add 198.51.100.7/32 dev lo\naddr add 2001:db8:7::7/128 dev lo")?;
    site.net.client.ns.wait_for_addresses()?;
    for (family, source) in Family::BOTH.into_iter().zip(["198.51.100.7", "2001:db8:7::7"]) {
        let source: IpAddr = source.parse()?;
        let target = site.service_address(family);
        let report = run_many(&site.net.client.ns, 20, 4, |_| {
            let mut stream = http::connect_from(SocketAddr::new(source, 0), target)?;
            Ok(http::exchange(&mut stream, "/", true)?.body)
        })?;
        report
            .ensure_complete(20)
            .with_context(|| format!("from {source}"))?;
    }
    Ok(())
}

#[test]
fn a_device_without_native_xdp_gets_generic_mode_and_the_reason() -> Result<()> {
    let _lane = Lane::shared()?;
    let (lb, other) = (Netns::new("lb")?, Netns::new("other")?);
    veth(&lb, "eth0", &other, "eth0")?;
    // A bridge forwards in software and has no native mode.
    lb.ip(
        "link add lan type bridge\nlink set eth0 master lan\nlink set lan up\naddr add 10.1.0.1/24 dev lan",
    )?;

    let mut auto = Daemon::new(&lb, &["lan"])?;
    auto.start()?;
    assert_eq!(auto.cli().json("status")?["interfaces"][0]["xdp_mode"], "generic");
    let log = auto.log();
    ensure!(
        log.contains("generic") && log.contains("lan"),
        "it is logged: {log}"
    );
    // The program that replaces the first one has not been refused, but runs as that did.
    auto.wait_for_whole_program()?;
    let status = auto.cli().json("status")?;
    let note = status["interfaces"][0]["note"].as_str().context("no note")?;
    ensure!(note.contains("native mode does not work here"), "{note}");
    auto.stop()?;

    let outcome = Daemon::new(&lb, &["lan"])?
        .args("--xdp-mode native")
        .run_to_end()?;
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    ensure!(
        outcome.stderr.contains("error: ") && outcome.stderr.contains("lan"),
        "{outcome:?}"
    );
    ensure!(
        outcome.stderr.contains("hint: "),
        "it names the remedy: {outcome:?}"
    );
    Ok(())
}

#[test]
fn a_backend_behind_a_new_mac_address_is_found_again() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Site::new(Shape::OneArmed, 1)?;
    let services = Family::BOTH.map(|f| site.echo_service(f, &[1]));
    let site = site.start(&services)?;
    let backend = &site.net.backends[0].ns;
    let send = |family, first_port| {
        udp_flows(
            &site.net.client.ns,
            site.service_address(family),
            first_port,
            5,
            1,
        )?
        .ensure_complete(5)
    };
    for family in Family::BOTH {
        send(family, 20_000)?;
    }
    // A replaced machine: the same addresses behind another MAC, announced as machines do.
    backend.ip("link set eth0 address 02:00:00:00:00:77")?;
    let mac = "02:00:00:00:00:77";
    for (family, host) in Family::BOTH.into_iter().zip([&site.net.backends[0]; 2]) {
        site.net.lb.ns.ip(&format!(
            "neigh replace {} lladdr {mac} dev eth0 nud reachable",
            host.ip(family)
        ))?;
    }
    for family in Family::BOTH {
        let mut port = 21_000;
        wait::until_true("flows reach the new MAC", Duration::from_secs(10), || {
            port += 5;
            let socket = site
                .net
                .client
                .ns
                .enter(|| open(site.service_address(family), port))??;
            socket.set_read_timeout(Some(Duration::from_millis(100)))?;
            Ok(echo_once(&socket, 1).is_ok())
        })?;
        send(family, 30_000)?;
    }
    Ok(())
}

//! The harness itself, against plain networks without a balancer: its reports must be true before other tests rely on
//! them.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use anyhow::Result;
use lb_tests::{
    capture::Capture,
    client::{KeepAlive, http_requests},
    frame_counter::{Count, FrameCounter, Way},
    http::HttpServer,
    lane::Lane,
    netns::Netns,
    nginx::Nginx,
    ping::ping,
    scratch::Scratch,
    topology::{Family, Shape, Topology, device_counters},
    udp::{UdpEcho, udp_flows},
    wait,
};

/// Longest wait on a busy machine.
const PLENTY: Duration = Duration::from_secs(60);

#[test]
fn every_shape_carries_both_families() -> Result<()> {
    let _lane = Lane::shared()?;
    for shape in [Shape::OneArmed, Shape::TwoArmed, Shape::Routed] {
        let net = Topology::new(shape, 2)?;
        if shape == Shape::TwoArmed {
            net.forward_in_kernel()?;
        }
        for family in Family::BOTH {
            for backend in &net.backends {
                ping(&net.client.ns, backend.ip(family))?;
            }
        }
    }
    Ok(())
}

#[test]
fn load_against_a_plain_server_is_counted_to_the_request() -> Result<()> {
    let _lane = Lane::shared()?;
    let net = Topology::new(Shape::OneArmed, 1)?;
    let backend = &net.backends[0];
    for family in Family::BOTH {
        let target = backend.socket(family, 8080);
        let server = HttpServer::start(&backend.ns, "b0", &[target])?;
        let capture = Capture::start(&backend.ns, "eth0", move |frame| frame.destination == target)?;
        let report = http_requests(&net.client.ns, target, 20_000, 500, 16)?;
        report.ensure_complete(500)?;
        assert_eq!((server.requests(), server.connections()), (500, 500));
        let syns = capture
            .stop()?
            .iter()
            .filter(|captured| captured.frame.is_syn())
            .count();
        assert_eq!(syns, 500);

        let echo = UdpEcho::start(&backend.ns, "b0", &[backend.socket(family, 7)])?;
        let report = udp_flows(&net.client.ns, backend.socket(family, 7), 20_000, 500, 16)?;
        report.ensure_complete(500)?;
        assert_eq!(echo.datagrams(), 500);
    }
    Ok(())
}

#[test]
fn a_refused_connection_and_a_lost_datagram_are_failures() -> Result<()> {
    let _lane = Lane::shared()?;
    let net = Topology::new(Shape::OneArmed, 1)?;
    let closed = net.backends[0].socket(Family::V4, 9);
    let report = http_requests(&net.client.ns, closed, 20_000, 3, 1)?;
    assert_eq!((report.errors.len(), report.total()), (3, 0));
    let report = udp_flows(&net.client.ns, closed, 20_000, 3, 1)?;
    assert_eq!((report.errors.len(), report.total()), (3, 0));
    Ok(())
}

#[test]
fn a_reset_keep_alive_connection_is_reported() -> Result<()> {
    let _lane = Lane::shared()?;
    let net = Topology::new(Shape::OneArmed, 1)?;
    let target = net.backends[0].socket(Family::V6, 8080);
    let mut nginx = Nginx::start(&net.backends[0].ns, "b0", target)?;
    let load = KeepAlive::start(&net.client.ns, target, 10)?;
    load.wait_rounds(3)?;
    nginx.kill()?;
    assert!(load.wait_rounds(1000).is_err());
    let report = load.stop()?;
    // The first loss ends the wait; the others may or may not have seen theirs when they are stopped.
    assert!((1..=10).contains(&report.errors.len()), "{:?}", report.errors);
    assert!(report.answers_of("b0") >= 30);
    Ok(())
}

#[test]
fn a_capture_rejects_a_wrong_checksum() -> Result<()> {
    let _lane = Lane::shared()?;
    let net = Topology::new(Shape::OneArmed, 1)?;
    let (client, backend) = (&net.client, &net.backends[0]);
    // nftables rewrites a byte of the payload on its way out and leaves the checksum as it is.
    client.ns.run_with_input(
        "nft",
        &["-f", "-"],
        "table netdev t { chain c { type filter hook egress device eth0 priority 0; udp dport 7 @th,64,8 set 0; }; }",
    )?;
    let target = backend.socket(Family::V4, 7);
    let capture = Capture::start(&backend.ns, "eth0", move |frame| frame.destination == target)?;
    let _echo = UdpEcho::start(&backend.ns, "b0", &[target])?;
    let report = udp_flows(&client.ns, target, 20_000, 1, 1)?;
    assert_eq!(report.errors.len(), 1, "the kernel must drop it too");
    let verdict = capture.stop().err().map(|e| e.to_string()).unwrap_or_default();
    assert!(verdict.contains("1 frames with a wrong checksum"), "{verdict}");
    Ok(())
}

#[test]
fn device_counters_count_frames() -> Result<()> {
    let _lane = Lane::shared()?;
    let net = Topology::new(Shape::TwoArmed, 1)?;
    let sent = || anyhow::Ok(device_counters(&net.client.ns, "eth0")?.tx_packets);
    let received = || anyhow::Ok(device_counters(&net.lb.ns, "front")?.rx_packets);
    // The kernel sends frames of its own, also between two readings.
    wait::until_true("both ends of a link count the same frames", PLENTY, || {
        let before = (sent()?, received()?);
        ping(&net.client.ns, net.vip(Family::V4, 9))?;
        let counted = (sent()? - before.0, received()? - before.1);
        Ok(counted.0 >= 1 && counted.0 == counted.1)
    })
}

#[test]
fn frame_counters_match_sent_frames() -> Result<()> {
    let _lane = Lane::shared()?;
    let net = Topology::new(Shape::OneArmed, 1)?;
    let target = net.backends[0].socket(Family::V4, 7);
    let matches = "udp dport 7";
    let sent = FrameCounter::start(&net.client.ns, "eth0", Way::Out, matches)?;
    let received = FrameCounter::start(&net.backends[0].ns, "eth0", Way::In, matches)?;
    let _echo = UdpEcho::start(&net.backends[0].ns, "b0", &[target])?;
    udp_flows(&net.client.ns, target, 20_000, 10, 1)?.ensure_complete(10)?;
    // Ethernet 14, IPv4 20, UDP 8, "datagram 0" 10.
    let expected = Count {
        packets: 10,
        bytes: 10 * 52,
    };
    assert_eq!((sent.read()?, received.read()?), (expected, expected));
    Ok(())
}

#[test]
fn harness_leaves_no_traces() -> Result<()> {
    let _lane = Lane::shared()?;
    let (namespace, directory) = {
        let ns = Netns::new("gone")?;
        let dir = Scratch::new()?;
        let mount = dir.join("bpf");
        fs::create_dir(&mount)?;
        lb_tests::netns::checked(
            std::process::Command::new("mount")
                .args(["-t", "bpf", "bpf"])
                .arg(&mount),
        )?;
        (Path::new("/run/netns").join(ns.name()), dir.path().to_owned())
    };
    assert!(!namespace.exists());
    assert!(!directory.exists());
    assert!(!fs::read_to_string("/proc/self/mounts")?.contains(&directory.display().to_string()));
    Ok(())
}

#[test]
fn a_namespace_is_a_network_of_its_own() -> Result<()> {
    let _lane = Lane::shared()?;
    let (a, b) = (Netns::new("a")?, Netns::new("b")?);
    let address: SocketAddr = "127.0.0.1:80".parse()?;
    let first = HttpServer::start(&a, "a", &[address])?;
    let second = HttpServer::start(&b, "b", &[address])?;
    assert_eq!(lb_tests::http::get(&a, address, "/")?.body, "a");
    assert_eq!(lb_tests::http::get(&b, address, "/")?.body, "b");
    assert_eq!((first.requests(), second.requests()), (1, 1));
    Ok(())
}

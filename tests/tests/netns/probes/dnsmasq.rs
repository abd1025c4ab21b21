//! DNS.

use std::{fs, net::SocketAddr};

use anyhow::{Result, ensure};
use lb_tests::{lane::Lane, netns::Netns, scratch::Scratch};
use lb_userspace::health::{
    CheckError, DnsChecker,
    settings::{DnsCheck, RecordType, Transport},
};

use super::{Server, check, wait_for};

#[test]
fn dnsmasq_answers_and_refuses_by_datagram_and_connection() -> Result<()> {
    let _lane = Lane::shared()?;
    let ns = Netns::new("probes")?;
    let scratch = Scratch::new()?;
    let hosts = scratch.write("hosts", "10.0.0.7 a.example\n2001:db8::7 a.example\n")?;
    let mut dnsmasq = ns.command("dnsmasq");
    let _dnsmasq = Server::start(
        dnsmasq
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--no-resolv",
                "--no-hosts",
                "--user=root",
            ])
            .args([
                "--listen-address=127.0.0.1",
                "--bind-interfaces",
                "--local=/example/",
                "--pid-file",
            ])
            .args([
                "--cname=www.example,a.example",
                "--txt-record=t.example,all is well",
            ])
            // More than a datagram takes without EDNS.
            .arg(format!("--txt-record=long.example,{0},{0},{0}", "x".repeat(200)))
            .arg(format!("--addn-hosts={}", hosts.display())),
    )?;
    ensure!(fs::exists(&hosts)?);
    let target: SocketAddr = "127.0.0.1:53".parse()?;
    let ask = |name: &str, record, transport, expect: Option<&str>| {
        DnsChecker::new(&DnsCheck {
            name: name.to_owned(),
            record,
            transport,
            expect_answer: expect.map(str::to_owned),
        })
    };
    wait_for(
        &ns,
        &ask("a.example", RecordType::A, Transport::Tcp, None)?,
        target,
    )?;
    for transport in [Transport::Udp, Transport::Tcp] {
        for (name, record, expect) in [
            ("a.example", RecordType::A, Some("10.0.0.7")),
            ("A.Example.", RecordType::Aaaa, Some("2001:DB8:0::7")),
            ("www.example", RecordType::Cname, Some("a.example.")),
            ("www.example", RecordType::A, None),
            ("t.example", RecordType::Txt, Some("all is well")),
            ("long.example", RecordType::Txt, None),
        ] {
            let result = check(&ns, &ask(name, record, transport, expect)?, target)?;
            ensure!(result == Ok(()), "{name}: {result:?}");
        }
        for (name, record, expect, wrong) in [
            (
                "a.example",
                RecordType::A,
                Some("10.0.0.8"),
                "10.0.0.7, expected 10.0.0.8",
            ),
            ("no.example", RecordType::A, None, "NXDOMAIN"),
            ("a.example", RecordType::Txt, None, "no TXT record"),
            ("elsewhere.invalid", RecordType::A, None, "REFUSED"),
        ] {
            let result = check(&ns, &ask(name, record, transport, expect)?, target)?;
            let Err(CheckError::Answer { reason, .. }) = &result else {
                anyhow::bail!("{name}: {result:?}");
            };
            ensure!(**reason == *wrong, "{name}: {reason}");
        }
    }
    Ok(())
}

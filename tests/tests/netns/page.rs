//! The web page of a real daemon in a real browser, and what its address answers to whom.
//!
//! `LB_PICTURES=DIR` keeps pictures of the page, for a person to look at.

use std::{
    env, fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
};

use anyhow::{Context, Result, ensure};
use lb_tests::{
    browser::Browser,
    client::KeepAlive,
    config::{Service, file},
    daemon::METRICS,
    http::connect,
    lane::Lane,
    netns::Netns,
    site::Site,
    topology::{Family, Shape},
};

/// Stands in every place of the configuration that may hold a credential.
const SECRET: &str = "xyzzy-secret";
/// A check that fails with markup as its reason.
const MARKUP: &str = "<img src=/stolen onerror=alert(1)><script>document.title='stolen'</script>";

/// Keeps pictures of the page in the usual widths and colours, where they are wanted.
fn pictures(browser: &Browser, name: &str) -> Result<()> {
    let Some(dir) = env::var_os("LB_PICTURES").map(PathBuf::from) else {
        return Ok(());
    };
    for (width, height) in [(375, 2400), (1280, 900), (1920, 1080)] {
        browser.resize(width, height)?;
        for scheme in ["light", "dark"] {
            browser.prefer(scheme)?;
            browser.picture(&dir.join(format!("page-{name}-{width}-{scheme}.png")))?;
        }
    }
    browser.resize(1280, 900)
}

/// Text of the row of a service, and of its opened backends.
fn row(service: &str) -> String {
    format!(
        "([...document.querySelectorAll('#services > tbody')].find(body => body.querySelector('.name').textContent === \
         '{service}')?.innerText ?? '')"
    )
}

/// An expression for the number that a cell of a service's row has, as `12.3k`.
fn number(service: &str, column: &str) -> String {
    format!(
        "(() => {{ const body = [...document.querySelectorAll('#services > tbody')].find(b => \
         b.querySelector('.name').textContent === '{service}'); \
         const text = body.querySelector('[data-label=\"{column}\"]').textContent; \
         return parseFloat(text) * ({{ k: 1e3, M: 1e6, G: 1e9 }}[text.at(-1)] || 1) || 0; }})()"
    )
}

#[test]
fn a_browser_shows_services_states_and_rates_of_the_daemon_and_follows_its_restart() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = Site::new(Shape::TwoArmed, 3)?;
    let script = site
        .daemon
        .dir()
        .write("check", format!("#!/bin/sh\necho \"{MARKUP}\"\nexit 1\n"))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    fs::set_permissions(site.daemon.dir().path(), fs::Permissions::from_mode(0o755))?;
    let fast =
        "interval = \"200ms\"\nfast_interval = \"100ms\"\nfall = 1\nrise = 1\ndown_interval_max = \"200ms\"";
    let web = site.web(Family::V4, &[1, 1, 1]).health(&format!(
        "kind = \"http\"\npath = \"/health?token={SECRET}\"\nheaders = {{ Authorization = \"Bearer {SECRET}\" }}\n{fast}"
    ));
    let marked = site
        .with_backends(
            Service::tcp("marked", SocketAddr::new(site.net.vip(Family::V4, 11), 80)),
            Family::V4,
            8080,
            &[1],
        )
        .health(&format!(
            "kind = \"exec\"\ncommand = [\"{}\", \"--token={SECRET}\"]\n{fast}",
            script.display()
        ));
    let services = [web, site.echo_service(Family::V4, &[1]), marked];
    site = site.start(&services)?;
    let load = KeepAlive::start(&site.net.client.ns, site.service_address(Family::V4), 4)?;

    let browser = Browser::start(&site.net.lb.ns, 1280, 900)?;
    browser.open(&format!("http://{METRICS}/"))?;
    browser.wait("document.querySelector('#link').textContent === 'live'")?;
    browser.wait(&format!(
        "/\\bok\\b/.test({}) && /\\bok\\b/.test({})",
        row("web4"),
        row("echo4")
    ))?;
    browser.wait(&format!("/\\bdown\\b/.test({})", row("marked")))?;
    // The rates are those of the real traffic.
    browser.wait(&format!(
        "{} > 10 && {} > 1000",
        number("web4", "packets/s"),
        number("web4", "bits/s")
    ))?;
    ensure!(browser.value(&number("marked", "packets/s"))? == 0);
    ensure!(
        browser
            .text("document.querySelector('#interfaces').innerText")?
            .contains("front")
    );
    ensure!(
        browser
            .text("document.querySelector('#events').innerText")?
            .contains("forwarding")
    );
    let status = site.daemon.cli().json("status")?;
    let host = browser.text("document.querySelector('#host').textContent")?;
    ensure!(host == fs::read_to_string("/proc/sys/kernel/hostname")?.trim());
    let version = browser.text("document.querySelector('#version').textContent")?;
    ensure!(status["version"] == version.as_str(), "{version}");

    // Backends, opened by keyboard: Enter on the focused button.
    browser.value("document.querySelectorAll('#services .name')[0].focus()")?;
    let opened = browser.text("document.activeElement.textContent")?;
    ensure!(opened == "marked", "the worst comes first: {opened}");
    browser.press_enter()?;
    browser.wait(&format!("{}.includes('<script>')", row("marked")))?;
    browser.value(
        "[...document.querySelectorAll('#services .name')].find(b => b.textContent === 'web4').click()",
    )?;
    browser.wait(&format!(
        "['b0', 'b1', 'b2'].every(name => {}.includes(name))",
        row("web4")
    ))?;
    pictures(&browser, "few")?;

    // A failure and its reason.
    site.http[1].set_health_status(503);
    browser.wait(&format!(
        "/degraded/.test({0}) && /status 503/.test({0})",
        row("web4")
    ))?;
    site.http[1].set_health_status(200);
    browser.wait(&format!("/\\bok\\b/.test({})", row("web4")))?;

    // Nothing that a backend says is markup, no credential is shown, and nothing was asked for elsewhere.
    ensure!(browser.text("document.title")?.contains(&host));
    ensure!(browser.value("document.querySelectorAll('main img, body script:not([nonce])').length")? == 0);
    let shown = browser.text("document.documentElement.outerHTML")?;
    ensure!(!shown.contains(SECRET), "a credential is in the page");
    for url in browser.requests() {
        ensure!(
            url.starts_with(&format!("http://{METRICS}/")) || url.starts_with("data:"),
            "asked for {url}"
        );
        ensure!(!url.contains("stolen"), "{url}");
    }
    let complaints = browser.complaints();
    ensure!(complaints.is_empty(), "{complaints:?}");
    load.stop()?.ensure_flawless()?;

    // Without a daemon nothing looks live; the next one's state is shown without a reload.
    let revision = browser.text("document.querySelector('#revision').textContent")?;
    site.daemon.stop()?;
    browser.wait("document.body.classList.contains('stale') && !document.querySelector('#lost').hidden")?;
    ensure!(browser.text("document.querySelector('#link').textContent")? == "not connected");
    ensure!(browser.text("document.title")?.starts_with("not connected"));
    pictures(&browser, "lost")?;
    site.daemon.start()?;
    site.daemon.cli().ok("backend drain web4 b2")?;
    browser.wait(
        "document.querySelector('#link').textContent === 'live' && document.querySelector('#lost').hidden",
    )?;
    browser.wait("!document.body.classList.contains('stale')")?;
    browser.wait(&format!("/draining/.test({})", row("web4")))?;
    ensure!(browser.text("document.querySelector('#revision').textContent")? != revision);
    Ok(())
}

#[test]
fn a_thousand_backends_are_shown_when_they_are_opened() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Site::new(Shape::TwoArmed, 2)?;
    let mut big = site.web(Family::V4, &[1, 1]);
    for i in 2..1000_u16 {
        let [high, low] = i.to_be_bytes();
        let address = format!("10.2.{}.{low}:8080", 4 + high).parse()?;
        big = big.backend(&format!("b{i}"), address, 1);
    }
    let site = site.start(&[big])?;
    let browser = Browser::start(&site.net.lb.ns, 1280, 900)?;
    browser.open(&format!("http://{METRICS}/"))?;
    browser.wait(&format!("/\\/1000/.test({})", row("web4")))?;
    let rows = "document.querySelectorAll('.inside tbody tr').length";
    ensure!(browser.value(rows)? == 0, "backends of a service that is closed");
    browser.value("document.querySelector('#services .name').click()")?;
    browser.wait(&format!("/1,000 backends/.test({})", row("web4")))?;
    ensure!(browser.value(rows)? == 200, "all at once");
    pictures(&browser, "many")?;
    browser.value("document.querySelector('.inside .more').click()")?;
    ensure!(browser.value(rows)? == 1000);
    // Found by name, while states go on coming.
    browser.value(
        "{ const input = document.querySelector('.inside input[type=search]'); input.value = 'b999'; \
         input.dispatchEvent(new Event('input')); }",
    )?;
    ensure!(browser.value(rows)? == 1);
    browser.value("window.seen = document.querySelector('#uptime').textContent")?;
    browser.wait("document.querySelector('#uptime').textContent !== window.seen")?;
    ensure!(browser.value(rows)? == 1);
    let complaints = browser.complaints();
    ensure!(complaints.is_empty(), "{complaints:?}");
    Ok(())
}

/// The answer to a request on a connection of its own, until it ends.
fn ask(ns: &Netns, target: SocketAddr, request: &str) -> Result<String> {
    let exchange = || -> std::io::Result<String> {
        let mut stream = connect(target, 0)?;
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    ns.enter(exchange)?.with_context(|| format!("{request:.60}"))
}

/// `GET path` with further header lines.
fn get(path: &str, host: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n")
}

/// A stream that has begun: the first line of its answer.
fn begin_stream(ns: &Netns, target: SocketAddr) -> Result<(TcpStream, String)> {
    ns.enter(|| -> Result<(TcpStream, String)> {
        let mut stream = connect(target, 0)?;
        stream.write_all(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let (mut line, mut byte) = (Vec::new(), [0]);
        while !line.ends_with(b"\r\n") {
            stream.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        Ok((stream, String::from_utf8_lossy(&line).into_owned()))
    })?
}

#[test]
fn the_address_of_the_page_answers_its_own_names_and_clients_alone() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = Site::new(Shape::TwoArmed, 1)?;
    let address = site.net.lb.socket(Family::V4, 9900);
    let config = format!(
        "[lb]\nmetrics_access = [\"127.0.0.0/8\", \"{}/32\"]\nmetrics_names = [\"balancer.example\"]\n{}",
        site.net.lb.ip(Family::V4),
        file(&[site.web(Family::V4, &[1])])
    );
    site.daemon = site.daemon.metrics_at("0.0.0.0:9900".parse()?).config(&config)?;
    site.daemon.start()?;
    let (own, client) = (&site.net.lb.ns, &site.net.client.ns);
    let local: SocketAddr = METRICS.parse()?;
    let status = |ns: &Netns, to: SocketAddr, request: &str| -> Result<u16> {
        let answer = ask(ns, to, request)?;
        answer
            .split(' ')
            .nth(1)
            .and_then(|word| word.parse().ok())
            .with_context(|| answer.clone())
    };
    let big = format!("X-Big: {}\r\n", "x".repeat(20_000));
    for (request, expected) in [
        (get("/", "127.0.0.1:9900", ""), 200),
        (get("/", "localhost", ""), 200),
        (get("/", "[::1]:9900", ""), 200),
        (get("/", "BALANCER.example:9900", ""), 200),
        (get("/", "evil.example", ""), 421),
        (get("/live", "evil.example", ""), 421),
        (get("/", "127.0.0.1", "Host: evil.example\r\n"), 421),
        (
            get(
                "/live",
                "localhost",
                "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: cors\r\n",
            ),
            403,
        ),
        (get("/", "localhost", &big), 431),
        (get("/", "localhost", "").replace("GET", "POST"), 405),
        (get("/live", "localhost", "").replace("GET", "DELETE"), 405),
        (get("/", "localhost", "").replace("GET", "HEAD"), 200),
        (get("/", "localhost", "Content-Length: 5\r\n") + "hello", 413),
        (
            get("/metrics", "localhost", "Transfer-Encoding: chunked\r\n") + "5\r\nhello\r\n",
            413,
        ),
        (get("/nothing", "localhost", ""), 404),
        // What machines ask for has any name.
        (get("/metrics", "prometheus.example", ""), 200),
        (get("/healthz", "probe.example", ""), 200),
    ] {
        ensure!(
            status(own, local, &request)? == expected,
            "not {expected}: {request:.200}"
        );
    }
    let page = ask(own, local, &get("/", "localhost", ""))?.to_lowercase();
    for header in [
        "content-security-policy: default-src 'none'; script-src 'nonce-",
        "frame-ancestors 'none'",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
        "cache-control: no-store",
    ] {
        ensure!(page.contains(header), "no {header}");
    }
    let nonce = |page: &str| page.split("nonce-").nth(1).map(|rest| rest[..32].to_owned());
    let again = ask(own, local, &get("/", "localhost", ""))?;
    ensure!(nonce(&page) != nonce(&again), "the number can be guessed");

    // A client that metrics_access does not list; the same address from where it is listed.
    ensure!(status(own, address, &get("/", &address.to_string(), ""))? == 200);
    for path in ["/", "/metrics", "/healthz", "/live"] {
        ensure!(
            status(client, address, &get(path, &address.to_string(), ""))? == 403,
            "{path}"
        );
    }
    let refused = site.daemon.metrics()?;
    let labels = [("listener", "metrics"), ("cause", "forbidden")];
    ensure!(refused.sum("lb_listener_ended_total", &labels) == 4.0);

    // Only so many streams; metrics are served beside them.
    let mut streams = Vec::new();
    for _ in 0..16 {
        let (stream, line) = begin_stream(own, local)?;
        ensure!(line.contains("200"), "{line}");
        streams.push(stream);
    }
    ensure!(begin_stream(own, local)?.1.contains("503"));
    ensure!(site.daemon.http_status("/metrics")? == 200);
    drop(streams.pop());
    lb_tests::wait::until_true("a place is free", std::time::Duration::from_secs(10), || {
        Ok(begin_stream(own, local)?.1.contains("200"))
    })?;
    // The end of the daemon ends them.
    site.daemon.stop()
}

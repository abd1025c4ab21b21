//! The API through a real unix socket, spoken to by the command line's own client.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    ops::ControlFlow,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    time::SystemTime,
};

use hyper::Method;
use lb_common::{
    backend::{Backend, BackendId},
    clients::ClientRing,
    quic::{Config, ConfigKey, ServerKey},
    ring_slot::RingSlot,
    service::{RingId, Service, ServiceId},
    settings::Settings,
    track::{self, FlowRecord},
};
use prometheus::Registry;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{access::Role, refusals::Refusals, requests::*, *};
use crate::{
    cli::{
        client::Client,
        error::{CliError, Exit},
    },
    config::{self, DaemonSettings, change::Request},
    config_file::ConfigFile,
    control::{
        Change, Inherited,
        testing::{Rig, request as testing_request},
    },
    datapath::{
        Attachment, Interface, InterfaceProblem, LinkOperation, Monitor, MonitorError, MonitorFilter,
        NextHopState, XdpMode,
    },
    events::Event,
    explain::{Answers, AnyTuple, ReadTables, Translated},
    health::{CheckId, CheckStatuses, Report, agent::AgentStatus},
    parts::PartBoard,
    serve::ServerMetrics,
    state::{
        removals::MayRemove,
        service::{Protocol, ServiceKey},
        stored::FileOrder,
        testing,
    },
};

#[derive(Clone, Default)]
struct NoChecks(Arc<std::sync::Mutex<Vec<(SocketAddr, Report)>>>);

impl ReadChecks for NoChecks {
    fn checks(&self) -> Arc<CheckStatuses> {
        Arc::default()
    }

    fn agents(&self) -> Arc<BTreeMap<CheckId, AgentStatus>> {
        Arc::default()
    }

    fn report(&self, target: SocketAddr, report: Report) {
        self.0.lock().unwrap().push((target, report));
    }
}

/// A data plane of which somebody else records packets.
struct NoMonitors;

impl BeginMonitor for NoMonitors {
    fn begin(
        &self,
        _: MonitorFilter,
    ) -> Pin<Box<dyn Future<Output = Result<Monitor, MonitorError>> + Send + '_>> {
        Box::pin(std::future::ready(Err(MonitorError::Busy)))
    }
}

/// A data plane without services.
struct NoTables;

impl ReadTables for NoTables {
    fn settings(&self) -> io::Result<Settings> {
        Ok(Settings::default())
    }
    fn service(&self, _: &ServiceKey) -> io::Result<Option<Service>> {
        Ok(None)
    }
    fn service_of_prefix(&self, _: IpAddr, _: u16, _: Protocol) -> io::Result<Option<Service>> {
        Ok(None)
    }
    fn ends_tunnels(&self, _: u8, _: IpAddr) -> io::Result<bool> {
        Ok(false)
    }
    fn service_key(&self, _: ServiceId) -> Option<ServiceKey> {
        None
    }
    fn slot(&self, _: RingId, _: u32) -> Option<RingSlot> {
        None
    }
    fn backend(&self, _: BackendId) -> io::Result<Option<Backend>> {
        Ok(None)
    }
    fn denies(&self, _: ServiceId, _: IpAddr) -> io::Result<bool> {
        Ok(false)
    }
    fn client_ring(&self, _: ServiceId, _: IpAddr) -> io::Result<Option<ClientRing>> {
        Ok(None)
    }
    fn answers_from(&self, _: &ServiceKey) -> io::Result<Option<Answers>> {
        Ok(None)
    }
    fn translated(&self, _: &AnyTuple) -> io::Result<Option<Translated>> {
        Ok(None)
    }
    fn record(&self, _: &AnyTuple, _: track::Table) -> io::Result<Option<FlowRecord>> {
        Ok(None)
    }
    fn quic_config(&self, _: &ConfigKey) -> io::Result<Option<Config>> {
        Ok(None)
    }
    fn quic_server(&self, _: &ServerKey) -> io::Result<Option<BackendId>> {
        Ok(None)
    }
    fn next_hop(&self, _: IpAddr) -> Option<NextHopState> {
        None
    }
}

mod access;
mod flows;
mod reload;
mod removals;

/// Clients that may follow events in these tests.
const FOLLOWERS: usize = 2;

fn place(path: &std::path::Path, role: Role) -> socket::Place {
    socket::Place {
        path: path.to_owned(),
        group: None,
        role,
    }
}

struct Server {
    rig: Rig,
    interfaces: watch::Sender<Arc<[Interface]>>,
    client: Client,
    checks: NoChecks,
    flows: flows::FewFlows,
    path: PathBuf,
    read_path: PathBuf,
    cancel: CancellationToken,
    _directory: tempfile::TempDir,
    _sockets: [socket::Socket; 2],
}

/// `eth0`, which has the program unless it has a problem.
fn interface(absence: Option<InterfaceProblem>) -> Interface {
    let attached = Attachment {
        ifindex: 2,
        xdp_mode: XdpMode::Generic,
        program_id: 42,
        program_tag: String::new(),
        link_id: 1,
        took_over: false,
        note: None,
    };
    Interface {
        configured: "enp3s0".into(),
        name: "eth0".into(),
        altnames: vec!["enp3s0".into()],
        slot: 0,
        operation: LinkOperation::Up,
        attached: absence.is_none().then_some(attached),
        absence,
        repairs: 0,
    }
}

/// The API of a rig, with its files in a directory.
fn api(
    rig: &Rig,
    directory: &tempfile::TempDir,
    config: Option<ConfigFile>,
    cancel: &CancellationToken,
    checks: &NoChecks,
    flows: &flows::FewFlows,
    interfaces: watch::Receiver<Arc<[Interface]>>,
) -> Api {
    Api {
        control: rig.control.clone(),
        observer: Arc::clone(&rig.observer),
        checks: Box::new(checks.clone()),
        tables: Box::new(NoTables),
        monitors: Box::new(NoMonitors),
        flows: Flows::new(flows.clone()),
        events: Arc::clone(&rig.events),
        journal: crate::events::journal::Journal::new(directory.path()),
        store: Arc::new(rig.world.clone()),
        config: config.map(Arc::new),
        interfaces,
        hosts: tokio::sync::watch::channel(Arc::default()).1,
        parts: PartBoard::new(Arc::clone(&rig.events)),
        settings: DaemonSettings::default(),
        file_at_start: Some(DaemonSettings::default()),
        started: SystemTime::UNIX_EPOCH,
        looks: Arc::default(),
        journal_permits: Arc::new(Semaphore::new(MAX_JOURNAL_READS)),
        followers: Arc::new(Semaphore::new(FOLLOWERS)),
        read_followers: Arc::new(Semaphore::new(FOLLOWERS)),
        refusals: Refusals::default(),
        reloads: reloads::Reloads::new(crate::control::ReloadMetrics::register(&Registry::new()).unwrap()),
        parser: FileParser::default(),
        cancel: cancel.clone(),
        tracker: TaskTracker::new(),
    }
}

/// The API of a rig where no check reports, for tests of what is built on it.
pub(crate) fn plain_api(rig: &Rig, directory: &tempfile::TempDir, cancel: &CancellationToken) -> Api {
    let (checks, flows) = (NoChecks::default(), flows::FewFlows::default());
    let interfaces = watch::channel(Arc::from([interface(None)])).1;
    api(rig, directory, None, cancel, &checks, &flows, interfaces)
}

impl Drop for Server {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Server {
    async fn start() -> Self {
        Self::start_with(None).await
    }

    async fn start_with(config: Option<ConfigFile>) -> Self {
        let desired = testing::desired([testing::service("web", 1, &[("a", 10), ("b", 20)])]);
        let rig = Rig::start(desired, Inherited::default()).await;
        let directory = tempfile::tempdir().unwrap();
        let path: PathBuf = directory.path().join("lb.sock");
        let (listener, socket) = socket::listen(&place(&path, Role::Admin)).await.unwrap();
        let cancel = CancellationToken::new();
        let checks = NoChecks::default();
        let flows = flows::FewFlows::default();
        let interfaces = watch::Sender::new([interface(None)].into());
        let api = api(
            &rig,
            &directory,
            config,
            &cancel,
            &checks,
            &flows,
            interfaces.subscribe(),
        );
        let metrics = ServerMetrics::register(&Registry::new()).unwrap();
        let server = crate::serve::Server {
            limits: limits(MAX_CONNECTIONS),
            metrics: metrics.listener("api"),
            released: Arc::default(),
            cancel: cancel.clone(),
        };
        let api = Arc::new(api);
        tokio::spawn(serve(
            listener,
            server.clone(),
            Arc::clone(&api),
            Access::All(Role::Admin),
        ));
        let read_path = directory.path().join("read.sock");
        let (listener, read_socket) = socket::listen(&place(&read_path, Role::Read)).await.unwrap();
        tokio::spawn(serve(listener, server, api, Access::All(Role::Read)));
        Self {
            rig,
            client: Client::new(path.clone()),
            checks,
            flows,
            path,
            read_path,
            interfaces,
            cancel,
            _directory: directory,
            _sockets: [socket, read_socket],
        }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<Changed, CliError> {
        self.client.change(method, path, Some(body)).await
    }
}

/// A report must reach the check of its backend, and must be refused if no check waits for it.
#[tokio::test]
async fn reports_reach_the_check_of_their_backend_or_are_refused() {
    let server = Server::start().await;
    let path = "/v1/services/web/backends/b/report";
    let down = ReportSpec {
        health: Reported::Down,
        ttl_ms: None,
        detail: Some(format!("disk\nfull {}", "x".repeat(1000))),
    };
    let send = async |path: &str, spec: &ReportSpec| {
        let sent = server
            .client
            .change::<ReportTaken>(Method::POST, path, Some(spec));
        sent.await
    };
    let error = send(path, &down).await.unwrap_err();
    assert!(error.to_string().contains("does not wait for reports"), "{error}");
    let push = json!({ "health": { "kind": "push" } });
    server
        .ask(Method::PATCH, "/v1/services/web", &push)
        .await
        .unwrap();
    assert_eq!(send(path, &down).await.unwrap().holds_ms, 30_000);
    let up = ReportSpec {
        health: Reported::Up,
        ttl_ms: Some(500),
        detail: None,
    };
    assert_eq!(send(path, &up).await.unwrap().holds_ms, 500);
    for (path, ttl, expected) in [
        ("/v1/services/web/backends/c/report", 1, "c"),
        ("/v1/services/no/backends/b/report", 1, "no"),
        (path, 0, "1 ms to 1 day"),
        (path, 86_400_001, "1 ms to 1 day"),
    ] {
        let spec = ReportSpec {
            ttl_ms: Some(ttl),
            ..up.clone()
        };
        let error = send(path, &spec).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{path}: {error}");
    }

    let taken = server.checks.0.lock().unwrap().clone();
    let b = "10.0.1.2:8080".parse().unwrap();
    let [(first, down), (second, well)] = &taken[..] else {
        panic!("{taken:?}");
    };
    assert_eq!((*first, *second), (b, b));
    assert_eq!(
        (&well.says, well.ttl),
        (&Ok(()), std::time::Duration::from_millis(500))
    );
    let words = down.says.clone().unwrap_err();
    assert!(words.starts_with("disk full xx") && words.len() == 200, "{words}");
}

fn keys(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| key.as_str())
        .collect()
}

#[tokio::test]
async fn an_explanation_has_the_fields_that_others_read() {
    let server = Server::start().await;
    let ask = async |query: &str| server.client.get::<Value>(&format!("/v1/explain?{query}")).await;
    let explanation = ask("protocol=tcp&source=198.51.100.7:4000&destination=192.0.2.1:80")
        .await
        .unwrap();
    let expected = [
        "verdict", "reason", "service", "backend", "mode", "slot", "tracked", "output", "steps",
    ];
    for key in expected {
        assert!(
            keys(&explanation).contains(&key),
            "{key} is missing in {explanation}"
        );
    }
    assert_eq!(
        (&explanation["verdict"], &explanation["reason"]),
        (&"pass".into(), &"not_ours".into())
    );
    for wrong in [
        "protocol=icmp&source=198.51.100.7:4000&destination=192.0.2.1:80",
        "protocol=tcp&source=198.51.100.7:4000&destination=%5B2001:db8::1%5D:80",
        "protocol=tcp&source=198.51.100.7&destination=192.0.2.1:80",
        "protocol=udp&source=198.51.100.7:1&destination=192.0.2.1:80&quic_id=0x1",
        "protocol=udp&source=198.51.100.7:1&destination=192.0.2.1:80&length=65536",
        "protocol=tcp&source=198.51.100.7:1&destination=192.0.2.1:80&interface=eth9",
    ] {
        assert_eq!(ask(wrong).await.unwrap_err().exit, Exit::Failed, "{wrong}");
    }
}

#[tokio::test]
async fn status_has_the_fields_that_others_read() {
    let server = Server::start().await;
    let status: Value = server.client.get("/v1/status").await.unwrap();
    let has = |value: &Value, wanted: &[&str]| {
        for key in wanted {
            assert!(keys(value).contains(key), "{key} is missing in {value}");
        }
    };
    has(
        &status,
        &["version", "pid", "revision", "ready", "interfaces", "services"],
    );
    has(&status["interfaces"][0], &["name", "xdp_mode", "program_id"]);
    assert_eq!(status["interfaces"][0]["xdp_mode"], "generic");
    assert_eq!(status["ready"], true);
    let service = &status["services"][0];
    has(
        service,
        &[
            "name",
            "address",
            "port",
            "protocol",
            "mode",
            "algorithm",
            "packets",
            "bytes",
            "new_flows",
            "active_flows",
            "healthy_backends",
            "backends",
            "programmed",
            "error",
        ],
    );
    assert_eq!(service["address"], "192.0.2.1");
    assert_eq!(
        (&service["protocol"], &service["mode"]),
        (&"tcp".into(), &"nat".into())
    );
    assert_eq!(
        (&service["programmed"], &service["error"]),
        (&true.into(), &Value::Null)
    );
    let backend = &service["backends"][0];
    has(
        backend,
        &[
            "name",
            "address",
            "weight",
            "effective_weight",
            "health",
            "admin",
            "packets",
            "bytes",
            "new_flows",
            "active_flows",
            "last_check",
            "since",
        ],
    );
    assert_eq!(backend["address"], "10.0.1.1:8080");
    assert_eq!(
        (&backend["health"], &backend["admin"]),
        (&"unchecked".into(), &"enabled".into())
    );
    assert_eq!(
        (&backend["weight"], &backend["effective_weight"]),
        (&10.into(), &10.into())
    );
}

#[tokio::test]
async fn services_and_backends_come_change_and_go() {
    let server = Server::start().await;
    let spec =
        json!({ "name": "new", "address": "2001:db8::1", "port": 53, "protocol": "udp", "mode": null });
    let added = server.ask(Method::POST, "/v1/services", &spec).await.unwrap();
    assert_eq!((added.revision, added.changed), (1, true));
    let again = server.ask(Method::POST, "/v1/services", &spec).await.unwrap();
    assert_eq!((again.revision, again.changed), (1, false));

    let backend = json!({ "name": "x", "address": "[2001:db8::2]:53" });
    server
        .ask(Method::POST, "/v1/services/new/backends", &backend)
        .await
        .unwrap();
    let drain = json!({ "admin": "draining", "deadline_ms": 60_000 });
    server
        .ask(Method::PATCH, "/v1/services/new/backends/x", &drain)
        .await
        .unwrap();
    let shown: types::Backend = server.client.get("/v1/services/new/backends/x").await.unwrap();
    assert_eq!(
        (shown.weight, shown.effective_weight, shown.admin),
        (100, 0, types::Admin::Draining)
    );
    assert!(shown.drain_deadline.is_some());

    server
        .client
        .change::<Changed>(
            Method::DELETE,
            "/v1/services/new/backends/x?now=false",
            None::<&()>,
        )
        .await
        .unwrap();
    let service: types::Service = server.client.get("/v1/services/new").await.unwrap();
    assert!(service.backends[0].removed, "it finishes its flows");
    server
        .client
        .change::<Changed>(Method::DELETE, "/v1/services/new", None::<&()>)
        .await
        .unwrap();
    let names: Vec<types::Service> = server.client.get("/v1/services").await.unwrap();
    assert_eq!(names.len(), 1);
}

#[tokio::test]
async fn every_refusal_has_its_status_exit_code_and_reason() {
    let server = Server::start().await;
    let weight = json!({ "weight": 1 });
    let other = json!({ "name": "a", "address": "10.0.1.77:8080" });
    let backend = "/v1/services/web/backends";
    for (method, path, body, exit, why) in [
        (
            Method::PATCH,
            "/v1/services/web/backends/zz",
            weight.clone(),
            Exit::NotFound,
            "web/zz",
        ),
        (
            Method::PATCH,
            "/v1/services/zz/backends/a",
            weight.clone(),
            Exit::NotFound,
            "zz",
        ),
        (
            Method::PATCH,
            "/v1/services/web/backends/a?revison=9",
            weight.clone(),
            Exit::Failed,
            "unknown parameter \"revison\"",
        ),
        (
            Method::PATCH,
            "/v1/services/web/backends/a?revision=%2B0",
            weight.clone(),
            Exit::Failed,
            "+0 is no number",
        ),
        (
            Method::PATCH,
            "/v1/services/web/backends/a?revision=9",
            weight.clone(),
            Exit::Conflict,
            "revision 0",
        ),
        (Method::POST, backend, other, Exit::Conflict, "exists"),
        (
            Method::PATCH,
            "/v1/services/web/backends/a",
            json!({ "mode": "natt" }),
            Exit::Failed,
            "natt",
        ),
        (
            Method::PATCH,
            "/v1/services/web/backends/a",
            json!({"wieght": 1}),
            Exit::Failed,
            "unknown key wieght",
        ),
        (
            Method::PATCH,
            "/v1/services/web/backends/a",
            json!({ "admin": "disabled", "deadline_ms": 1 }),
            Exit::Failed,
            "only a drain",
        ),
        (
            Method::PATCH,
            "/v1/services/web/backends/a",
            json!({ "admin": "draining", "deadline_ms": "1s" }),
            Exit::Failed,
            "deadline_ms",
        ),
        (
            Method::PATCH,
            "/v1/services/web",
            json!({ "health": { "kind": "tcp", "interval": 5 } }),
            Exit::Failed,
            "interval: expected a duration",
        ),
        (
            Method::PATCH,
            "/v1/services/web",
            json!([1]),
            Exit::Failed,
            "expected an object",
        ),
        (
            Method::PATCH,
            "/v1/services/we%20b/backends/a",
            weight.clone(),
            Exit::Failed,
            "we b",
        ),
        (
            Method::PATCH,
            "/v1/services/web",
            json!({ "guard": { "allow": ["x".repeat(MAX_SERVICE_REQUEST)] } }),
            Exit::Failed,
            "at most 8 MiB",
        ),
        (
            Method::POST,
            "/v1/nonsense",
            Value::Null,
            Exit::NotFound,
            "no such path",
        ),
    ] {
        let error = server.ask(method, path, &body).await.expect_err(path);
        assert_eq!(error.exit, exit, "{path}: {error}");
        assert!(error.message.contains(why), "{path}: {error}");
    }
    assert_eq!(server.rig.control.view().desired.revision.0, 0);
    server.rig.world.lock().save_fails = true;
    let error = server
        .ask(Method::PATCH, "/v1/services/web/backends/a", &weight)
        .await
        .unwrap_err();
    assert_eq!(error.exit, Exit::Failed);
    assert!(
        error.message.starts_with("cannot save") && error.hint.is_some(),
        "{error}"
    );
}

#[test]
fn requests_are_objects_of_json_without_null() {
    let read = serde_json::from_str::<Request>;
    let request =
        read(r#"{"port": 80, "mode": null, "health": {"jitter": 0.5, "mark": null}, "ports": [1, "2-3"]}"#);
    let expected = "port = 80\nhealth = { jitter = 0.5 }\nports = [1, \"2-3\"]";
    assert!(request.unwrap() == testing_request(expected));
    for (text, why) in [
        ("[]", "expected an object, found array"),
        ("null", "expected an object, found null"),
        (r#"{"port": 1, "port": 2}"#, "port is there twice"),
        (r#"{"port": null, "port": 2}"#, "port is there twice"),
        (r#"{"port": 1, "port": null}"#, "port is there twice"),
        (
            r#"{"health": {"mark": null, "mark": null}}"#,
            "mark is there twice",
        ),
        (r#"{"ports": [null]}"#, "a list has no null"),
        (r#"{"mark": 18446744073709551615}"#, "a smaller number"),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(why), "{text}: {error}");
    }
}

#[tokio::test]
async fn apply_and_export_are_each_others_reverse() {
    let server = Server::start().await;
    let exported = server.client.text("/v1/export").await.unwrap();
    let apply = |toml: &str, dry_run| ApplyRequest {
        file: "lb.toml".into(),
        toml: toml.into(),
        more: Vec::new(),
        dry_run,
        allow_empty: false,
        allow_removals: false,
    };
    let same = server
        .ask(Method::POST, "/v1/apply", &apply(&exported, false))
        .await
        .unwrap();
    assert!(!same.changed, "{:?}", same.diff);
    let dry = server
        .ask(Method::POST, "/v1/apply", &apply("", true))
        .await
        .unwrap();
    assert!(dry.changed && dry.dry_run && !dry.diff.is_empty());
    let large = format!("# {}\n{exported}", "x".repeat(4 << 20));
    let same = server
        .ask(Method::POST, "/v1/apply", &apply(&large, false))
        .await
        .unwrap();
    assert!(!same.changed, "a large file is no problem");
    let less = exported.replace("weight = 10\n", "weight = 60\n");
    let done = server
        .ask(Method::POST, "/v1/apply?revision=0", &apply(&less, false))
        .await
        .unwrap();
    assert_eq!(done.moved[0].service, "web");
    let restart = server
        .ask(
            Method::POST,
            "/v1/apply",
            &apply("[lb]\nstate_dir = \"/x\"\n", true),
        )
        .await
        .unwrap();
    assert!(
        restart.warnings[0].contains("state_dir"),
        "{:?}",
        restart.warnings
    );

    let error = server
        .ask(
            Method::POST,
            "/v1/apply",
            &apply("[lb]\nmetrics = 1\nx = 2\n", false),
        )
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("lb.toml:2:") && text.contains("lb.toml:3:") && text.contains("2 errors"),
        "{text}"
    );
    assert_eq!(server.rig.control.view().desired.revision.0, 1);
}

/// After an edit of the file the status shows the effect of a restart; after a drain by command, that it stays.
#[tokio::test(start_paused = true)]
async fn status_shows_how_the_running_state_differs_from_the_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let write = |text: &str| {
        std::fs::remove_file(file.path()).unwrap();
        std::fs::write(file.path(), text).unwrap();
    };
    let server = Server::start_with(ConfigFile::of(&[file.path().to_owned()])).await;
    let status = async || server.client.get::<types::Status>("/v1/status").await.unwrap();
    let reload = async |text: &str| {
        write(text);
        let config = config::parse(text, "lb.toml").unwrap();
        let change = Change::File(Arc::new(config), FileOrder::Reload, MayRemove::NOT_ALL);
        server.rig.control.change(change, None, false).await.map(drop)
    };
    let exported = server.client.text("/v1/export").await.unwrap();
    reload(&exported).await.unwrap();
    let now = status().await;
    assert!(now.config.in_force && now.problems.is_empty(), "{now:?}");
    assert_eq!(now.config.file.as_deref(), file.path().to_str());

    let more = json!({ "name": "more", "address": "192.0.2.77", "port": 53, "protocol": "udp" });
    server.ask(Method::POST, "/v1/services", &more).await.unwrap();
    let now = status().await.config;
    assert_eq!(
        (now.in_force, now.file_in_force),
        (false, false),
        "an edited file would undo it: {now:?}"
    );
    assert!(now.by_command[0].starts_with("+ service more"), "{now:?}");
    server
        .client
        .change::<Changed>(Method::DELETE, "/v1/services/more", None::<&()>)
        .await
        .unwrap();

    let drain = json!({ "weight": 7 });
    server
        .ask(Method::PATCH, "/v1/services/web/backends/a", &drain)
        .await
        .unwrap();
    let by_command = ["~ backend web/a: weight 10 -> 7"];
    let now = status().await.config;
    assert_eq!(
        (now.file_in_force, now.by_command.as_slice()),
        (false, &by_command.map(str::to_owned)[..])
    );
    assert_eq!(now.pending, [""; 0]);

    write(&exported.replace("weight = 20", "weight = 21"));
    let now = status().await.config;
    assert_eq!(
        now.pending,
        [
            "~ backend web/a: weight 7 -> 10",
            "~ backend web/b: weight 20 -> 21"
        ]
    );
    write("[lb");
    let now = status().await;
    assert!(now.config.pending.is_empty() && !now.config.file_in_force);
    assert!(
        now.problems[0].message.contains("goes on with the running state"),
        "{now:?}"
    );

    let refused = reload("").await.unwrap_err();
    server
        .rig
        .control
        .refused(format!("reload refused: {refused}"))
        .await;
    server.rig.until(|view| view.refused.is_some()).await;
    let now = status().await;
    assert_eq!(now.problems.len(), 1, "one thing is wrong: {now:?}");
    assert!(
        now.problems[0].message.contains("no services, and 1 is in force"),
        "{now:?}"
    );
    reload(&exported).await.unwrap();
    let now = status().await;
    assert!(
        now.problems.is_empty() && now.config.pending.is_empty(),
        "{now:?}"
    );
    assert_eq!(
        now.config.by_command, by_command,
        "the file has not changed: the command stays in force"
    );
}

#[tokio::test]
async fn a_file_without_services_is_no_order_to_remove_all() {
    let server = Server::start().await;
    let apply = |allow_empty| ApplyRequest {
        file: "lb.toml".into(),
        toml: String::new(),
        more: Vec::new(),
        dry_run: false,
        allow_empty,
        allow_removals: false,
    };
    let error = server
        .ask(Method::POST, "/v1/apply", &apply(false))
        .await
        .unwrap_err();
    assert!(
        error
            .hint
            .as_ref()
            .is_some_and(|hint| hint.contains("--allow-empty")),
        "{error}"
    );
    assert_eq!(server.rig.control.view().desired.services.len(), 1);
    let done = server.ask(Method::POST, "/v1/apply", &apply(true)).await.unwrap();
    assert_eq!(done.diff, ["- service web"]);
}

#[tokio::test]
async fn followers_of_events_see_past_and_new_events() {
    let server = Server::start().await;
    let weight = |weight: u16| json!({ "weight": weight });
    server
        .ask(Method::PATCH, "/v1/services/web/backends/a", &weight(1))
        .await
        .unwrap();
    let mut seen = Vec::new();
    let follow = server.client.lines("/v1/events?follow=true", |line| {
        let event: Event = serde_json::from_str(line).unwrap();
        seen.push(event.message);
        Ok(if seen.len() < 4 {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        })
    });
    let patch = weight(2);
    let change = server.ask(Method::PATCH, "/v1/services/web/backends/a", &patch);
    let (followed, changed) = tokio::join!(follow, change);
    assert!(followed.unwrap().is_break());
    changed.unwrap();
    assert_eq!(seen[3], "changed: weight 1 -> 2");

    let mut all = 0;
    let count = |_: &str| {
        all += 1;
        Ok(ControlFlow::Continue(()))
    };
    let ended = server.client.lines("/v1/events?follow=false", count).await;
    assert!(ended.unwrap().is_continue());
    assert_eq!(all, 4);
}

/// Otherwise followers of events could take every connection, and `lb status` would fail.
#[tokio::test]
async fn followers_leave_room_for_commands() {
    let server = Server::start().await;
    server.ask(Method::DELETE, "/v1/services/web", &()).await.unwrap();
    let follow = async |first: &tokio::sync::Notify| {
        let seen = |_: &str| {
            first.notify_one();
            Ok(ControlFlow::Continue(()))
        };
        server.client.lines("/v1/events?follow=true", seen).await
    };
    let (one, two) = (tokio::sync::Notify::new(), tokio::sync::Notify::new());
    let refused = async {
        one.notified().await;
        two.notified().await;
        let error = follow(&tokio::sync::Notify::new()).await.unwrap_err();
        assert_eq!(error.exit, Exit::Unreachable, "{error}");
        server.client.get::<Value>("/v1/status").await.unwrap();
    };
    tokio::select! {
        ended = follow(&one) => panic!("{ended:?}"),
        ended = follow(&two) => panic!("{ended:?}"),
        () = refused => {}
    }
}

#[tokio::test]
async fn the_document_describes_every_route_and_every_type() {
    let server = Server::start().await;
    let document: Value = server.client.get("/openapi.json").await.unwrap();
    let paths = keys(&document["paths"]);
    assert_eq!(paths.len(), 17, "{paths:?}");
    let schemas = &document["components"]["schemas"];
    for (name, example) in [
        ("Status", server.client.get::<Value>("/v1/status").await.unwrap()),
        (
            "Service",
            server.client.get::<Value>("/v1/services/web").await.unwrap(),
        ),
        (
            "Backend",
            server
                .client
                .get::<Value>("/v1/services/web/backends/a")
                .await
                .unwrap(),
        ),
        (
            "Readiness",
            server.client.get::<Value>("/v1/health").await.unwrap(),
        ),
        (
            "FlowCount",
            server.client.get::<Value>("/v1/flows/count").await.unwrap(),
        ),
    ] {
        for key in keys(&example) {
            assert!(
                schemas[name]["properties"].get(key).is_some(),
                "{name}.{key} is not documented"
            );
        }
    }
    let text = document.to_string();
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schemas.get(name).is_some(), "{name} is referred to and not there");
    }
}

#[tokio::test]
async fn not_ready_while_an_interface_has_no_program() {
    let server = Server::start().await;
    let get = async |path: &str| server.client.get::<Value>(path).await;
    let status = get("/v1/status").await.unwrap();
    assert_eq!(
        (&status["ready"], &status["problems"]),
        (&true.into(), &Value::Array(vec![]))
    );
    let eth0 = &status["interfaces"][0];
    assert_eq!(eth0["altnames"], json!(["enp3s0"]));
    assert_eq!(eth0["note"], "configured as enp3s0");

    let gone = InterfaceProblem {
        message: "is missing".into(),
        hint: Some("plug it in".into()),
    };
    server.interfaces.send_replace([interface(Some(gone))].into());
    let status = get("/v1/status").await.unwrap();
    assert_eq!(status["ready"], false);
    assert_eq!(status["problems"][0]["message"], "interface eth0 is missing");
    assert_eq!(status["problems"][0]["hint"], "plug it in");
    let eth0 = &status["interfaces"][0];
    assert_eq!(
        (&eth0["xdp_mode"], &eth0["program_id"]),
        (&"none".into(), &0.into())
    );
    let error = get("/v1/health").await.unwrap_err();
    assert!(error.message.contains("eth0 is missing"), "{error:?}");

    server.interfaces.send_replace([interface(None)].into());
    assert_eq!(get("/v1/health").await.unwrap()["ready"], true);
}

/// Refused before anything is put into the kernel, with the names that there are.
#[tokio::test]
async fn a_monitor_of_what_does_not_exist_is_refused() {
    let api = Server::start().await;
    let cases = [
        ("service=wob", Exit::NotFound, "no such service", "services: web"),
        (
            "backend=web-9",
            Exit::NotFound,
            "no such backend",
            "backends: a, b",
        ),
        (
            "service=web&backend=web-9",
            Exit::NotFound,
            "no such backend",
            "backends: a, b",
        ),
        (
            "backend=10.0.1.1:81",
            Exit::NotFound,
            "no such backend",
            "backends: a, b",
        ),
        ("sevice=web", Exit::Failed, "unknown parameter", "drops, service"),
        (
            "reason=no_backends",
            Exit::NotFound,
            "no such reason",
            "lb explain",
        ),
        (
            "drops=true&reason=not_ours",
            Exit::Failed,
            "not dropped",
            "leave out drops",
        ),
        (
            "client=192.0.2.0/33",
            Exit::Failed,
            "more than the 32 bits",
            "from 0 to 32",
        ),
        (
            "client=192.0.2.7/24",
            Exit::Failed,
            "bits beyond its length",
            "192.0.2.0/24",
        ),
        (
            "client=::ffff:192.0.2.7",
            Exit::Failed,
            "IPv4 address written as IPv6",
            "IPv4 address itself",
        ),
        ("client=clients", Exit::Failed, "no prefix", "for example"),
        ("sample=0", Exit::Failed, "sample is 0", "every packet"),
        ("rate=0", Exit::Failed, "rate is 0", "1 to"),
        (
            "service=web&drops=true",
            Exit::Conflict,
            "another monitor",
            "wait",
        ),
        (
            "client=2001:db8::/32&reason=no_backend,not_ours",
            Exit::Conflict,
            "another monitor",
            "wait",
        ),
    ];
    for (query, exit, message, hint) in cases {
        let path = format!("/v1/monitor?{query}");
        let refused = api
            .client
            .lines(&path, |_| Ok(ControlFlow::Break(())))
            .await
            .unwrap_err();
        assert_eq!(refused.exit, exit, "{query}: {refused}");
        assert!(refused.message.contains(message), "{query}: {refused}");
        assert!(
            refused.hint.as_deref().unwrap_or_default().contains(hint),
            "{query}: {refused}"
        );
    }
}

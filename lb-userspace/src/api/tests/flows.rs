//! `/v1/flows`

use std::sync::{Mutex, atomic::AtomicU64, atomic::Ordering};

use lb_common::backend::Generation;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

use super::*;
use crate::{
    api::types::{FlowCount, Flushed},
    datapath::{Flow, FlowFilter, FlowState, ReadFlows, WayBack},
};

/// Flows of clients in this prefix never end.
const ENDLESS: &str = "203.0.113.0/24";

/// A table of flows.
#[derive(Clone, Default)]
pub(super) struct FewFlows {
    flows: Arc<Mutex<Vec<Flow>>>,
    /// Flows that walks without an end have come to.
    visited: Arc<AtomicU64>,
    /// Such walks under way.
    endless: Arc<watch::Sender<usize>>,
}

impl FewFlows {
    fn takes(filter: &FlowFilter, flow: &Flow) -> bool {
        let place = (flow.service, flow.backend);
        filter.service.is_none_or(|key| key == flow.service)
            && filter.backends.as_ref().is_none_or(|all| all.contains(&place))
            && filter
                .client
                .is_none_or(|client| client.contains(flow.client.ip()))
            && filter.state.is_none_or(|state| state == flow.state)
    }
}

impl ReadFlows for FewFlows {
    fn walk(&self, filter: &FlowFilter, visit: &mut dyn FnMut(&[Flow]) -> ControlFlow<()>) -> io::Result<()> {
        let flows = self.flows.lock().unwrap().clone();
        if filter.client == Some(ENDLESS.parse().unwrap()) {
            self.endless.send_modify(|walks| *walks += 1);
            while visit(&flows).is_continue() {
                self.visited.fetch_add(flows.len() as u64, Ordering::Relaxed);
            }
            self.endless.send_modify(|walks| *walks -= 1);
            return Ok(());
        }
        let meant: Vec<Flow> = flows
            .into_iter()
            .filter(|flow| Self::takes(filter, flow))
            .collect();
        let _ = visit(&meant);
        Ok(())
    }

    fn flush(&self, filter: &FlowFilter, removed: &mut u64) -> io::Result<()> {
        let mut flows = self.flows.lock().unwrap();
        let before = flows.len();
        flows.retain(|flow| !Self::takes(filter, flow));
        *removed += (before - flows.len()) as u64;
        Ok(())
    }
}

/// A flow of service `web` to its backend `a` or `b`.
fn flow(client: &str, backend: u8, state: FlowState, age: u32) -> Flow {
    let vip: IpAddr = [192, 0, 2, 1].into();
    let backend = SocketAddr::from(([10, 0, 1, backend], 8080));
    Flow {
        protocol: Protocol::Tcp,
        client: client.parse().unwrap(),
        destination: SocketAddr::new(vip, 80),
        service: ServiceKey::new(vip, 80, Protocol::Tcp),
        owner: (BackendId(u16::from(backend.port() == 0) + 1), Generation(0)),
        backend,
        to: backend,
        via: Some("10.0.0.1:1024".parse().unwrap()),
        state,
        age: Some(age),
        idle: 2,
        slot: Some(7),
        way_back: Some(WayBack {
            ifindex: 2,
            vlans: lb_common::vlan::Vlans::NONE,
        }),
    }
}

impl Server {
    async fn with_flows() -> Self {
        let server = Self::start().await;
        let mut flows = [
            flow("198.51.100.1:1000", 1, FlowState::Established, 5),
            flow("198.51.100.2:1000", 2, FlowState::Closing, 60),
            flow("198.51.100.2:1001", 2, FlowState::Established, 7),
        ];
        for flow in &mut flows {
            flow.owner.0 = BackendId(u16::from(flow.backend == "10.0.1.2:8080".parse().unwrap()) + 1);
        }
        *server.flows.flows.lock().unwrap() = flows.into();
        server
    }

    /// Clients of the flows that a query lists.
    async fn listed(&self, query: &str) -> Result<Vec<String>, CliError> {
        let mut clients = Vec::new();
        let path = format!("/v1/flows?{query}");
        let read = self.client.lines(&path, |line| {
            let flow: types::Flow<'_> = serde_json::from_str(line).unwrap();
            clients.push(flow.client.to_string());
            Ok(ControlFlow::Continue(()))
        });
        read.await.map(|_| clients)
    }

    async fn flush(&self, query: &str) -> Result<Flushed, CliError> {
        let path = format!("/v1/flows?{query}");
        self.client.change(Method::DELETE, &path, None::<&()>).await
    }
}

#[tokio::test]
async fn a_flow_is_listed_with_names_and_all_that_is_known_of_it() {
    let server = Server::with_flows().await;
    let line = server.client.text("/v1/flows?limit=1").await.unwrap();
    assert_eq!(
        line,
        r#"{"service":"web","backend":"a","protocol":"tcp","client":"198.51.100.1:1000","address":"192.0.2.1:80","#
            .to_owned()
            + r#""to":"10.0.1.1:8080","via":"10.0.0.1:1024","state":"established","age":5,"idle":2,"slot":7,"#
            + r#""interface":"eth0","vlans":[]}"#
            + "\n"
    );
}

#[tokio::test]
async fn a_selection_takes_the_flows_that_it_names() {
    let server = Server::with_flows().await;
    let [first, second, third] = ["198.51.100.1:1000", "198.51.100.2:1000", "198.51.100.2:1001"];
    for (query, expected) in [
        ("", &[first, second, third][..]),
        ("service=web&limit=2", &[first, second]),
        ("limit=0", &[]),
        ("service=web&backend=b", &[second, third]),
        ("backend=a", &[first]),
        ("client=198.51.100.2", &[second, third]),
        ("client=2001:db8::/32", &[]),
        ("state=closing", &[second]),
        ("sort=age", &[second, third, first]),
        ("sort=age&limit=1", &[second]),
        ("sort=client&state=established", &[first, third]),
    ] {
        assert_eq!(server.listed(query).await.unwrap(), expected, "{query}");
    }
}

#[tokio::test]
async fn a_selection_that_makes_no_sense_is_refused_with_a_remedy() {
    let server = Server::with_flows().await;
    for (query, exit, remedy) in [
        ("service=wbe", Exit::NotFound, "services: web"),
        ("service=web&backend=c", Exit::NotFound, "backends: a, b"),
        ("backend=c", Exit::NotFound, "backends: a, b"),
        ("state=open", Exit::Failed, "opening"),
        ("client=10.0.0.1/8", Exit::Failed, "10.0.0.0/8"),
        ("sort=bytes", Exit::Failed, "sort by age, idle, client"),
        ("sort=age&limit=100001", Exit::Failed, "100000"),
        (
            "servise=web",
            Exit::Failed,
            "service, backend, client, state, sort, limit",
        ),
    ] {
        let error = server.listed(query).await.unwrap_err();
        assert_eq!(error.exit, exit, "{query}: {error}");
        assert!(error.to_string().contains(remedy), "{query}: {error}");
    }
}

#[tokio::test]
async fn flows_are_counted_by_state_and_group() {
    let server = Server::with_flows().await;
    let count = async |query: &str| -> FlowCount {
        let path = format!("/v1/flows/count?{query}");
        server.client.get(&path).await.unwrap()
    };
    let all = count("").await;
    assert_eq!((all.flows, all.states.established, all.states.closing), (3, 2, 1));
    assert!(all.groups.is_empty() && all.rest == 0);
    let of_backends = count("by=backend").await.groups;
    let names = of_backends.iter().map(|group| group.backend.as_deref().unwrap());
    assert_eq!(names.collect::<Vec<_>>(), ["b", "a"]);
    let of_clients = count("by=client&limit=1&state=established").await;
    assert_eq!((of_clients.groups.len(), of_clients.rest), (1, 1));
}

#[tokio::test]
async fn a_flush_removes_what_it_names_says_so_and_never_everything_unasked() {
    let server = Server::with_flows().await;
    let error = server.flush("").await.unwrap_err();
    assert!(error.to_string().contains("all=true"), "{error}");
    assert_eq!(
        server.flush("dry_run=true").await.unwrap(),
        Flushed {
            flows: 3,
            dry_run: true
        }
    );
    let error = server.flush("state=established&servise=web").await.unwrap_err();
    assert!(
        error.to_string().contains("unknown parameter \"servise\""),
        "{error}"
    );
    assert_eq!(
        server.listed("").await.unwrap().len(),
        3,
        "only counted, or refused"
    );

    let flushed = server.flush("service=web&backend=b").await.unwrap();
    assert_eq!((flushed.flows, flushed.dry_run), (2, false));
    assert_eq!(server.listed("").await.unwrap(), ["198.51.100.1:1000"]);
    let events = server.rig.events.list(0, None);
    let event = events.last().unwrap();
    assert_eq!(
        (event.service.as_deref(), event.backend.as_deref()),
        (Some("web"), Some("b"))
    );
    assert_eq!(event.message, "flows flushed: 2 (service web, backend b)");
    let before = events.len();
    assert_eq!(server.flush("all=true").await.unwrap().flows, 1);
    let events = server.rig.events.list(0, None);
    assert_eq!(events[before].message, "flows flushed: 1 (all)");
}

/// Starts a walk without an end, and reads its first bytes only.
async fn stalled(server: &Server) -> UnixStream {
    let mut stream = UnixStream::connect(&server.path).await.unwrap();
    let request = format!("GET /v1/flows?client={ENDLESS} HTTP/1.1\r\nhost: lb\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    stream
}

/// Begins to count flows of which there is no end.
async fn counting(server: &Server) -> UnixStream {
    let mut stream = UnixStream::connect(&server.path).await.unwrap();
    let request = format!("GET /v1/flows/count?client={ENDLESS} HTTP/1.1\r\nhost: lb\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn wait_for(server: &Server, walks: usize) {
    let mut endless = server.flows.endless.subscribe();
    endless.wait_for(|under_way| *under_way == walks).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_makes_its_walk_wait_and_nothing_else() {
    let server = Server::with_flows().await;
    let mut stalled_readers = Vec::new();
    for walks in 1..MAX_WALKS {
        stalled_readers.push(stalled(&server).await);
        wait_for(&server, walks).await;
    }
    assert_eq!(server.listed("service=web").await.unwrap().len(), 3);
    stalled_readers.push(stalled(&server).await);
    wait_for(&server, MAX_WALKS).await;
    let error = server.listed("").await.unwrap_err();
    assert!(error.to_string().contains("under way"), "{error}");

    drop(stalled_readers);
    wait_for(&server, 0).await;
    assert_eq!(server.listed("service=web").await.unwrap().len(), 3);
    // What fits the pieces and the sockets, of lines of 200 bytes.
    let each = server.flows.visited.load(Ordering::Relaxed) / MAX_WALKS as u64;
    assert!(
        each < 20_000,
        "{each} flows were read for a client that does not read"
    );

    let _reader = stalled(&server).await;
    wait_for(&server, 1).await;
    server.cancel.cancel();
    wait_for(&server, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_count_holds_its_permit_until_its_walk_ends_and_ends_it_without_a_client() {
    let server = Server::with_flows().await;
    let mut clients = Vec::new();
    for walks in 1..=MAX_WALKS {
        clients.push(counting(&server).await);
        wait_for(&server, walks).await;
    }
    let error = server.listed("").await.unwrap_err();
    assert!(error.to_string().contains("under way"), "{error}");
    drop(clients);
    wait_for(&server, 0).await;
}

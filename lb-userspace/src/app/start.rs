//! The start of the daemon, up to the message that it forwards.

use std::{
    io::Write,
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use prometheus::Registry;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Daemon, RunError, agents, banner, datapath_parts,
    first::{First, first_state},
    had, interfaces,
    leave::{self, leave},
    loading::{self, Loading},
    memory, node, remote, reports,
    servers::Servers,
    settings::Flags,
    sockets,
    watches::Watches,
};
use crate::{
    api::{self, Api, FileParser, refusals::Refusals},
    chain::chain,
    config::{Config, DaemonSettings},
    config_file::{ConfigFile, FileError},
    control::{
        ApplyMetrics, ControlTask, Observer, Parts, ReloadMetrics, inherit, own_traffic, still_needed,
        stored_agent_updates,
    },
    datapath::{AttachOptions, Datapath, EarlyStart, WriterTask, needs_of},
    descriptors,
    discovery::{self, SystemResolver},
    events::{EventKind, EventLog, journal::Journal},
    health::{HealthConfig, HealthMetrics, HealthTask},
    metrics::{self, Endpoint},
    parts::{Part, PartBoard},
    serve::ServerMetrics,
    state::store::{LenientStore, Store},
};

impl Daemon {
    pub(super) async fn start(
        settings: DaemonSettings,
        file: Option<Result<Config, FileError>>,
        flags: &Flags,
        early: EarlyStart,
        serving: Handle,
    ) -> Result<Self, RunError> {
        let config = ConfigFile::of(&flags.config).map(Arc::new);
        let file_at_start = file.as_ref().and_then(|file| file.as_ref().ok());
        let file_at_start = file_at_start.map(|file| file.daemon.clone());
        let events = Arc::new(EventLog::after(Journal::new(&settings.state_dir).last()));
        let board = PartBoard::new(Arc::clone(&events));
        let sockets = sockets::listen(&settings).await?;
        let store = Arc::new(LenientStore::open(&settings.state_dir, config.is_some())?);
        let first = first_state(&*store, file, flags.strict)?;
        let mut notes = first.report(&events);
        let saving = first.save(Arc::clone(&store));
        let store: Arc<dyn Store + Send + Sync> = store;
        let First { stored, refused, .. } = first;
        let metrics_listener = metrics::bind(settings.metrics).await;
        let registry = Registry::new();
        let apply_metrics = ApplyMetrics::register(&registry)?;
        let reloads = api::reloads::Reloads::new(ReloadMetrics::register(&registry)?);
        let server_metrics = ServerMetrics::register(&registry)?;
        let cancel = CancellationToken::new();
        let descriptors = descriptors::raised_limit();
        let checks = HealthConfig {
            max_in_flight: descriptors::checks_allowed(descriptors),
            ..HealthConfig::new(node::number(&settings.state_dir))
        };
        own_traffic::keep_checks_apart(&stored.desired);
        let (health, verdicts) =
            HealthTask::spawn(checks, HealthMetrics::register(&registry)?, cancel.clone())?;

        let attach_options = AttachOptions {
            interfaces: settings.interfaces.clone(),
            wait_for_interfaces: settings.wait_for_interfaces,
            xdp_mode: settings.xdp_mode,
            pin_dir: settings.pin_dir.clone(),
            reset: flags.reset,
            needs: needs_of(&stored.desired),
        };
        let (mut datapath, attached) = Datapath::begin(&attach_options, early)?;
        // Nothing is programmed before it is saved.
        notes.extend(saving.done(&events).await?);
        let (interfaces, changes) = (datapath.interfaces(), datapath.changes());
        let datapath_parts = datapath.parts();
        let check_paths = Arc::new(datapath.check_paths());
        health.lead(check_paths.clone());
        let known = [agents::recall(&settings.state_dir), store.recall()].concat();
        let known = still_needed(&stored.desired, known);
        store.forget_all_but(&known);
        agents::forget(&settings.state_dir);
        let inherited = inherit(
            &stored.desired,
            datapath.programmed(),
            &known,
            stored_agent_updates(&known),
        );
        health.recall(inherited.memories.clone());
        reports::recall(&health, &known);
        let writer_cancel = CancellationToken::new();
        let writer = WriterTask::spawn(datapath, writer_cancel.clone());
        let (publish_faults, faults) = watch::channel(Arc::default());
        let observer = Arc::new(Observer::new(Box::new(writer.clone()), faults));
        let parts = Parts {
            writer: writer.clone(),
            store: Arc::clone(&store),
            checks: Box::new(health.clone()),
            verdicts,
            agents: Box::new(health.agents().clone()),
            agent_updates: health.agents().reports(),
            ways: writer.next_hops(),
            host: writer.host_addresses(),
            observer: Arc::clone(&observer),
            events: Arc::clone(&events),
            metrics: apply_metrics,
            stored,
            refused,
            inherited,
        };
        let mut loading = Loading::new(attached);
        if loading::checks_need_program(&parts.stored.desired) {
            loading.done(&check_paths).await?;
        }
        let (task, control) = match ControlTask::start(parts).await {
            Ok(started) => started,
            Err(error) => {
                let on_exit = leave::after_failed_start(&interfaces.borrow());
                check_paths.close().await;
                if let Err(error) = leave(&writer, on_exit).await {
                    tracing::error!(error = chain(&error), "cannot detach");
                }
                return Err(error.into());
            }
        };

        loading.done(&check_paths).await?;
        let control_cancel = CancellationToken::new();
        let control_task = tokio::spawn(task.run(control_cancel.clone()));
        let tracker = TaskTracker::new();
        let (publish_hosts, hosts) = watch::channel(Arc::default());
        tracker.spawn(discovery::run(
            SystemResolver,
            control.clone(),
            writer.host_addresses(),
            Arc::clone(&events),
            publish_hosts,
            cancel.clone(),
        ));
        let endpoint = Endpoint {
            registry,
            hosts: hosts.clone(),
            observer: Arc::clone(&observer),
            control: control.clone(),
            health: health.clone(),
            interfaces: interfaces.clone(),
            parts: board.clone(),
            events: Arc::clone(&events),
            config: config.clone(),
        };
        let servers = Servers::new(server_metrics, descriptors, cancel.clone());
        let metrics = had::Late::new(Part::Metrics, metrics_listener, &board, &cancel);
        let watches = Watches {
            writer: &writer,
            control: &control,
            health: &health,
            interfaces: &interfaces,
            settings: &settings,
            publish_faults,
            events: &events,
            parts: &board,
            cancel: &cancel,
        };
        watches.spawn(&tracker);
        tracker.spawn(memory::give_back(
            control.clone(),
            Arc::clone(&servers.released),
            cancel.clone(),
        ));
        let api = Api {
            control: control.clone(),
            observer,
            checks: Box::new(health.clone()),
            tables: Box::new(writer.tables()),
            monitors: Box::new(writer.clone()),
            flows: api::Flows::new(writer.flows()),
            events: Arc::clone(&events),
            journal: Journal::new(&settings.state_dir),
            store,
            config,
            interfaces: interfaces.clone(),
            hosts,
            parts: board.clone(),
            settings: settings.clone(),
            file_at_start,
            started: SystemTime::now(),
            looks: Arc::default(),
            journal_permits: Arc::new(Semaphore::new(api::MAX_JOURNAL_READS)),
            followers: servers.followers(api::MAX_CONNECTIONS),
            read_followers: servers.followers(api::MAX_READERS),
            refusals: Refusals::default(),
            reloads,
            parser: FileParser::default(),
            cancel: cancel.clone(),
            tracker: tracker.clone(),
        };
        let (api, mut guards) = (Arc::new(api), Vec::new());
        let endpoint = had::serve_metrics(metrics, servers.metrics(), endpoint, Arc::clone(&api));
        tracker.spawn_on(endpoint, &serving);
        remote::spawn(&api, servers.tls(), &serving);
        for (place, listening) in sockets {
            let guard = Arc::new(OnceLock::new());
            guards.push(Arc::clone(&guard));
            let late = had::Late::new(sockets::part(place.role), listening, &board, &cancel);
            let server = servers.api(place.role);
            let listener = had::serve_api(late, place, server, Arc::clone(&api), guard);
            tracker.spawn_on(listener, &serving);
        }

        let daemon = Self {
            settings,
            control,
            control_task,
            writer,
            health,
            check_paths,
            events,
            api,
            cancel,
            control_cancel,
            writer_cancel,
            tracker,
            parts: board,
            _sockets: guards,
        };
        let interfaces = interfaces.borrow().clone();
        for (kind, message) in interfaces::at_start(&interfaces) {
            daemon.event(kind, message);
        }
        daemon.event(EventKind::Started, "forwarding".into());
        daemon.tracker.spawn(interfaces::report(
            changes,
            Arc::clone(&daemon.events),
            daemon.control.clone(),
            daemon.cancel.clone(),
        ));
        daemon.tracker.spawn(datapath_parts::follow(
            datapath_parts,
            daemon.parts.clone(),
            daemon.cancel.clone(),
        ));
        let view = daemon.control.view();
        let missing = daemon.parts.missing();
        let greeting = banner::text(&daemon.settings, &interfaces, &missing, &view, &notes);
        // A closed stdout does not stop the daemon.
        let _ = std::io::stdout().lock().write_all(greeting.as_bytes());
        Ok(daemon)
    }
}

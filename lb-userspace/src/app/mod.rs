//! The daemon: start-up, signals, shutdown. Start-up first acquires everything that can be refused (file, socket, state
//! directory, metrics address) and touches the kernel last. Shutdown ends the tasks that serve clients, then control,
//! then the writer, which detaches or keeps the program.

mod agents;
mod banner;
mod datapath_parts;
mod error;
mod first;
mod foreground;
mod had;
mod interfaces;
mod keep_events;
mod leave;
mod loading;
mod memory;
mod node;
mod notify;
mod remote;
mod reports;
pub mod settings;
mod signals;
mod sockets;
pub(crate) mod telemetry;
mod threads;
mod watchdog;
mod watches;

use std::{
    io::Write,
    process,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use prometheus::Registry;
use tokio::{
    sync::{Notify, Semaphore, watch},
    task::JoinHandle,
    time,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{error::RunError, foreground::work_until_end};
use self::{
    first::{First, first_state},
    leave::leave,
    loading::Loading,
    notify::{Notice, notify},
    settings::Flags,
    signals::{SignalAction, Signals},
    watches::Watches,
};
use crate::{
    api::{self, Api, FileParser, access::Role, refusals::Refusals, socket::Socket},
    chain::chain,
    config::{Config, DaemonSettings, daemon::OnExit},
    config_file::{ConfigFile, FileError},
    control::{
        ApplyMetrics, ControlHandle, ControlTask, Observer, Parts, ReloadMetrics, inherit, own_traffic,
        still_needed, stored_agent_updates,
    },
    datapath::{AttachOptions, CheckPaths, Datapath, EarlyStart, WriterHandle, WriterTask, needs_of},
    descriptors,
    discovery::{self, SystemResolver},
    events::{EventKind, EventLog, NewEvent, journal::Journal},
    health::{HealthConfig, HealthHandle, HealthMetrics, HealthTask},
    metrics::{self, Endpoint},
    parts::{Part, PartBoard},
    serve::{Server, ServerMetrics},
    state::store::{LenientStore, Store},
};

/// Time that tasks have to end on shutdown.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(5);
/// Exit code after a second signal.
const EXIT_AT_ONCE: i32 = 1;

/// Runs the daemon until a signal ends it.
///
/// # Errors
/// [`RunError`]
pub fn run(flags: &Flags) -> Result<(), RunError> {
    let (settings, file) = flags.resolve()?;
    if settings.interfaces.is_empty() && !settings.wait_for_interfaces {
        return Err(RunError::NoInterface);
    }
    memory::limit_arenas();
    telemetry::start(settings.log_format);
    let early = EarlyStart::begin(&settings.pin_dir, flags.reset).map_err(RunError::Threads)?;
    let runtime = threads::runtime().map_err(RunError::Threads)?;
    let result = runtime.block_on(daemon(flags, settings, file, early));
    // A blocking read of a map must not hold up the exit.
    runtime.shutdown_timeout(SHUTDOWN_DEADLINE);
    result
}

async fn daemon(
    flags: &Flags,
    settings: DaemonSettings,
    file: Option<Result<Config, FileError>>,
    early: EarlyStart,
) -> Result<(), RunError> {
    let mut signals = Signals::new().map_err(RunError::Signals)?;
    let mut daemon = Daemon::start(settings, file, flags, early).await?;
    daemon.notify_ready();
    let reason = daemon.serve(&mut signals).await;
    // A service manager that does not listen sees the process end.
    let _ = notify(Notice::Stopping);
    tokio::select! {
        result = daemon.stop(reason) => result,
        () = signals.end() => {
            tracing::warn!("second signal: exiting at once");
            process::exit(EXIT_AT_ONCE)
        }
    }
}

/// Why the daemon stops serving.
enum Reason {
    /// A signal asked for it.
    Signal,
    /// A task ended that should not have.
    Died(&'static str),
}

/// Everything that runs.
struct Daemon {
    settings: DaemonSettings,
    control: ControlHandle,
    control_task: JoinHandle<()>,
    writer: WriterHandle,
    health: HealthHandle,
    check_paths: Arc<CheckPaths>,
    events: Arc<EventLog>,
    api: Arc<Api>,
    /// Ends the tasks that serve others: API, metrics, checks.
    cancel: CancellationToken,
    /// Ends control, after the tasks that request changes.
    control_cancel: CancellationToken,
    /// Ends the helpers of the writer.
    writer_cancel: CancellationToken,
    tracker: TaskTracker,
    parts: PartBoard,
    /// Removes the sockets' files when the daemon ends.
    _sockets: Vec<Arc<OnceLock<Socket>>>,
}

impl Daemon {
    async fn start(
        settings: DaemonSettings,
        file: Option<Result<Config, FileError>>,
        flags: &Flags,
        early: EarlyStart,
    ) -> Result<Self, RunError> {
        let config = ConfigFile::of(&flags.config).map(Arc::new);
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
        let released = Arc::new(Notify::new());
        let server = |limits, name| Server {
            limits,
            metrics: server_metrics.listener(name),
            released: Arc::clone(&released),
            cancel: cancel.clone(),
        };
        let connections = |most| descriptors::connections_allowed(descriptors, most);
        let metrics_server = server(metrics::limits(connections(metrics::MAX_CONNECTIONS)), "metrics");
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
            Arc::clone(&released),
            cancel.clone(),
        ));
        let api_limits = |most| api::limits(connections(most));
        let api_server = |role| match role {
            Role::Admin | Role::Operate => server(api_limits(api::MAX_CONNECTIONS), "api"),
            Role::Read => server(api_limits(api::MAX_READERS), "api_read"),
        };
        let followers = |most| Arc::new(Semaphore::new(api_limits(most).connections / 2));
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
            started: SystemTime::now(),
            followers: followers(api::MAX_CONNECTIONS),
            read_followers: followers(api::MAX_READERS),
            refusals: Refusals::default(),
            reloads,
            parser: FileParser::default(),
            cancel: cancel.clone(),
            tracker: tracker.clone(),
        };
        let (api, mut guards) = (Arc::new(api), Vec::new());
        tracker.spawn(had::serve_metrics(
            metrics,
            metrics_server,
            endpoint,
            Arc::clone(&api),
        ));
        remote::spawn(&api, server(api_limits(api::MAX_CONNECTIONS), "api_tls"));
        for (place, listening) in sockets {
            let guard = Arc::new(OnceLock::new());
            guards.push(Arc::clone(&guard));
            let late = had::Late::new(sockets::part(place.role), listening, &board, &cancel);
            let server = api_server(place.role);
            tracker.spawn(had::serve_api(late, place, server, Arc::clone(&api), guard));
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

    /// Notifies the service manager that the daemon forwards.
    fn notify_ready(&self) {
        let notified = notify(Notice::Ready);
        let late = had::Late::new(Part::ServiceManager, notified, &self.parts, &self.cancel);
        self.tracker.spawn(had::notify_ready(late));
        let rest = loading::load_rest(self.writer.clone(), self.cancel.clone());
        self.tracker.spawn(rest);
    }

    /// Serves until a signal or until a task dies. The configuration file is read again on SIGHUP.
    async fn serve(&mut self, signals: &mut Signals) -> Reason {
        loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    SignalAction::End => return Reason::Signal,
                    SignalAction::Reload => {}
                },
                _ = &mut self.control_task => return Reason::Died("control"),
                () = self.health.stopped() => return Reason::Died("health check"),
                task = self.writer.stopped() => return Reason::Died(task),
            }
            api::reload::by_signal(&self.api).await;
        }
    }

    /// Ends everything in order.
    async fn stop(self, reason: Reason) -> Result<(), RunError> {
        self.event(EventKind::Stopping, "stopping".into());
        self.cancel.cancel();
        self.tracker.close();
        if time::timeout(SHUTDOWN_DEADLINE, self.tracker.wait())
            .await
            .is_err()
        {
            tracing::warn!("some requests were not finished in time");
        }
        self.control_cancel.cancel();
        self.check_paths.close().await;
        let died = match reason {
            Reason::Signal => {
                if self.control_task.await.is_err() {
                    tracing::error!("the control task failed during shutdown");
                }
                None
            }
            Reason::Died(who) => Some(RunError::Died(who)),
        };
        // A daemon that fails must not take the forwarding with it.
        let on_exit = if died.is_some() {
            OnExit::Keep
        } else {
            self.settings.on_exit
        };
        let left = leave(&self.writer, on_exit).await;
        self.writer_cancel.cancel();
        died.map_or(left, Err)
    }

    fn event(&self, kind: EventKind, message: String) {
        let event = NewEvent {
            kind,
            service: None,
            backend: None,
            revision: self.control.view().desired.revision.0,
            message,
            by: None,
        };
        self.events.push(event, SystemTime::now());
    }
}

//! The wiring: builds every component, and knows the order in which they stop.

mod check;
mod listen;
mod load;
mod policy;
#[cfg(test)]
pub(crate) mod rehearsal;
mod secret;
#[cfg(test)]
mod tests;

use std::{
    fs,
    path::Path,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use tokio::{net::UnixListener, sync::mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::Server;
use tracing::{error, info, warn};

use broker_config::Config;
use broker_proto::Down;

use crate::{
    context::{Bodies, package::Signer},
    core::Command,
    engine::{self, Clock, EngineHandle, SystemClock},
    handoffs::{Bridges, Builder, Handoffs, Prober, Transfers},
    intake::{Intake, Limits},
    journal::{self, Journal},
    link::{self, LinkOutlet, Links},
    packages::{Ahead, Packages},
    projection::{self, Projection},
    reply::{AskerLeft, Slots},
    rings::Wakes,
    service::{
        self, AgentLinkService, ConsultService, ContentService, DeadlineLayer, EventService,
        HandoffService, IdentityLayer, MessageService, RegistryService, SessionService, ShedLayer,
        TaskService, TraceLayer, Uploads, UsageService, Verify, Watches,
    },
    session::Sessions,
    sweep::Sweep,
};

pub use check::{Checked, check};

/// How often closed slots and idle uploads are let go of.
const SWEEP: Duration = Duration::from_secs(5);

/// Handoffs that wait for somebody to begin with their packages.
const HANDOFFS_BEGUN: usize = 1024;

/// Members of rings that wait to be woken.
const WAKES: usize = 256;

/// Limits that come near and are waiting for their packages.
const LIMITS_NEAR: usize = 256;

/// Why the broker did not start, or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot use the data folder `{path}`")]
    Folder { path: String, source: std::io::Error },
    #[error(
        "another broker uses the data folder `{path}`: stop it first, or give another with --data-dir"
    )]
    InUse { path: String },
    #[error("a broker already listens on `{path}`")]
    SocketInUse { path: String },
    #[error("cannot listen on `{path}`")]
    Listen { path: String, source: std::io::Error },
    #[error("cannot open the journal")]
    Journal(#[from] journal::OpenError),
    #[error("`{path}` is damaged")]
    Damaged { path: String, source: projection::Error },
    #[error(transparent)]
    Projection(#[from] projection::Error),
    #[error(transparent)]
    Engine(#[from] engine::Fatal),
    #[error("the system gives no random numbers")]
    Random(#[from] getrandom::Error),
    #[error("cannot serve")]
    Serve(#[from] tonic::transport::Error),
    #[error("cannot describe the services")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Where the store is.
#[derive(Debug, Clone, Copy)]
pub enum Store<'a> {
    Folder(&'a Path),
    /// Gone with the process; for tests.
    Memory,
}

/// What the rules take from a configuration.
#[must_use]
pub fn policy_of(config: &Config) -> crate::core::Policy {
    policy::policy(config)
}

/// Serves on `listener` until `stop` fires, then stops in order.
///
/// # Errors
/// [`Error`] when it cannot start, or when the journal cannot be trusted any more (I-31).
pub async fn run(
    listener: UnixListener,
    store: Store<'_>,
    config: &Config,
    stop: CancellationToken,
) -> Result<(), Error> {
    let lock = match store {
        Store::Folder(folder) => Some(secret::lock(folder)?),
        Store::Memory => None,
    };
    let (journal_at, projection_at) = match store {
        Store::Folder(folder) => (
            journal::Options::Sqlite { directory: folder.to_owned(), capacity: None },
            projection::Place::Directory(folder.to_owned()),
        ),
        Store::Memory => (journal::Options::Memory, projection::Place::Memory),
    };
    let leases = match store {
        Store::Folder(folder) => secret::lease_key(folder)?,
        Store::Memory => link::LeaseKey::new(secret::random_key()?),
    };
    let signer = match store {
        Store::Folder(folder) => secret::signer(folder)?,
        Store::Memory => Signer::new(&secret::random_key()?),
    };
    let journal = journal::open(journal_at).await?;
    let tasks = TaskTracker::new();
    // The store outlives the services: their last answers still go through it.
    let stop_store = CancellationToken::new();
    let policy = policy::policy(config);
    let loading = load::load(&journal, &projection_at, &policy, &tasks, &stop_store);
    let loaded = Box::pin(loading).await?;
    let projection = loaded.projection.clone();
    let parts = Parts {
        journal,
        projection: projection.clone(),
        leases,
        signer,
        tasks: tasks.clone(),
        stop: stop.clone(),
    };
    let served = Box::pin(serve(listener, config, &parts, loaded)).await;
    stop_store.cancel();
    stop.cancel();
    tasks.close();
    if tokio::time::timeout(config.broker.shutdown_grace, tasks.wait()).await.is_err() {
        warn!(tasks = tasks.len(), "still running after the grace period; leaving them");
    }
    if served.as_ref().is_err_and(load::is_damage) {
        projection.close().await;
        projection_at.put_aside()?;
        warn!("the projection is damaged: it is put aside, and folded anew at the next start");
    }
    drop(lock);
    served
}

/// What is there before the services are.
struct Parts {
    journal: Arc<dyn Journal>,
    projection: Projection,
    leases: link::LeaseKey,
    signer: Signer,
    tasks: TaskTracker,
    stop: CancellationToken,
}

async fn serve(
    listener: UnixListener,
    config: &Config,
    parts: &Parts,
    loaded: load::Loaded,
) -> Result<(), Error> {
    let load::Loaded { writer, state, mut folding, .. } = loaded;
    // Rising over restarts: a link has one number for ever.
    let first_link = (writer.epoch().0 << 32) | 1;
    let stored = parts.projection.broker_time().await?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::not_below(stored));
    let (slots, gone) = Slots::new(config.streams.slot_bytes);
    let links = Links::default();
    let (near, limits_near) = mpsc::channel(LIMITS_NEAR);
    let (builds, wanted) = mpsc::channel(HANDOFFS_BEGUN);
    let (probes, probed) = mpsc::channel(HANDOFFS_BEGUN);
    let (wakes, calls) = mpsc::channel(WAKES);
    let leases = parts.leases.clone();
    let (of_links, of_slots) = (links.clone(), slots.clone());
    let outlet = Box::new(LinkOutlet::new(of_links, of_slots, leases, near, builds, probes, wakes));
    let projection = parts.projection.clone();
    let (engine, task) =
        engine::engine(state, writer, projection.clone(), Arc::clone(&clock), outlet);
    let stop_engine = CancellationToken::new();
    let mut running = parts.tasks.spawn(task.run(stop_engine.clone()));
    let leaving = forward_leaving(gone, slots.clone(), engine.clone(), stop_engine.clone());
    parts.tasks.spawn(leaving);

    let bodies = Bodies::new(Arc::clone(&parts.journal));
    let intake = Intake {
        engine: engine.clone(),
        projection: projection.clone(),
        bodies: bodies.clone(),
        models: Arc::new(config.models.clone()),
        limits: Limits {
            message: config.broker.max_message,
            inline_part: config.broker.inline_part,
            dedup_window: config.broker.dedup_window,
            dedup_keys: config.broker.dedup_keys,
        },
        clock: Arc::clone(&clock),
        seen: Arc::default(),
        highest: Arc::default(),
        parts: Arc::default(),
    };
    let uploads = Uploads::default();
    parts.tasks.spawn(sweep(slots.clone(), uploads.clone(), stop_engine.clone()));
    let sweeping = Sweep {
        journal: Arc::clone(&parts.journal),
        bodies: bodies.clone(),
        engine: engine.clone(),
        clock: Arc::clone(&clock),
        parts: Arc::clone(&intake.parts),
        grace: config.broker.keep_unreferenced,
    };
    parts.tasks.spawn(sweeping.run(stop_engine.clone()));
    let sessions = Sessions {
        intake: intake.clone(),
        indexes: Arc::default(),
        said: Arc::default(),
        slots: slots.clone(),
        settings: config.sessions.clone(),
    };
    let link_services = link::Services {
        engine: engine.clone(),
        projection,
        bodies,
        slots: slots.clone(),
        links: links.clone(),
        leases: parts.leases.clone(),
        intake: intake.clone(),
        sessions: sessions.clone(),
        clock,
        settings: link::Settings {
            heartbeat: config.links.heartbeat,
            lease: config.links.lease,
            pull_lease: config.links.pull_lease,
            hello_deadline: config.links.hello_deadline,
            heartbeat_deadline: config.links.heartbeat_deadline,
        },
        next_link: Arc::new(AtomicU64::new(first_link)),
        stop: parts.stop.clone(),
    };
    let packages = Packages {
        intake: intake.clone(),
        sessions,
        signer: parts.signer.clone(),
        settings: config.packages.clone(),
    };
    let handoffs = policy::policy(config).handoff;
    let ahead = Ahead::new(packages.clone(), handoffs.clone(), limits_near);
    parts.tasks.spawn(ahead.run(stop_engine.clone()));
    let builder = Builder {
        packages: packages.clone(),
        settings: handoffs,
        wanted,
        tasks: parts.tasks.clone(),
    };
    parts.tasks.spawn(builder.run(stop_engine.clone()));
    let prober = Prober { intake: intake.clone(), wanted: probed };
    parts.tasks.spawn(prober.run(stop_engine.clone()));
    let wakes = Wakes::new(config, calls, engine.clone(), parts.tasks.clone());
    parts.tasks.spawn(wakes.run(stop_engine.clone()));
    let serving = services(listener, config, parts, packages, link_services, slots, uploads);
    let patience = async {
        parts.stop.cancelled().await;
        tokio::time::sleep(config.broker.shutdown_grace).await;
    };
    let ended = tokio::select! {
        served = serving => served,
        () = patience => {
            warn!("streams are still open after the grace period; leaving them");
            Ok(())
        }
        run = &mut running => {
            // Only a journal that cannot be trusted ends the engine before it is told to.
            run.unwrap_or(Ok(())).map_err(Error::from)
        }
        folded = &mut folding => folded.unwrap_or(Err(projection::Error::Stopped)).map_err(Error::from),
    };
    if let Err(error) = &ended {
        error!(error = error as &dyn std::error::Error, "the broker cannot go on");
    }
    stop_engine.cancel();
    if !running.is_finished()
        && let Ok(flushed) = running.await
    {
        flushed?;
    }
    ended
}

async fn services(
    listener: UnixListener,
    config: &Config,
    parts: &Parts,
    packages: Packages,
    link_services: link::Services,
    slots: Slots,
    uploads: Uploads,
) -> Result<(), Error> {
    let intake = packages.intake.clone();
    let limits = &config.limits;
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status("", tonic_health::ServingStatus::Serving).await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(service::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let links = link_services.links.clone();
    let leases = link_services.leases.clone();
    let journal = Arc::clone(&parts.journal);
    let kind = match journal.identity().durability {
        journal::Durability::Relaxed => "memory",
        journal::Durability::Synced | journal::Durability::Replicated => "sqlite",
    };
    // Room for a frame's envelope around its content.
    let frame =
        usize::try_from(config.broker.max_frame).unwrap_or(usize::MAX).saturating_add(64 * 1024);
    let verify = Verify { engine: intake.engine.clone() };
    let stop = parts.stop.clone();
    let stopping = async move {
        stop.cancelled().await;
        info!("stopping: links drain, streams end");
        health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
        let open = links.len();
        links.send_each(None, |link| Down::Drain {
            reason: "the broker is stopping".to_owned(),
            until: None,
            reconnect_after: Some(leases.reconnect_after(link, open)),
            is_over: false,
        });
    };
    let agent_link =
        AgentLinkService { services: link_services.clone(), tasks: parts.tasks.clone() };
    let consult = ConsultService { intake: intake.clone(), slots, stop: parts.stop.clone() };
    let content = ContentService { intake: intake.clone(), journal: Arc::clone(&journal), uploads };
    let watches = Watches { engine: intake.engine.clone(), journal, stop: parts.stop.clone() };
    let event = EventService { intake: intake.clone(), watches: watches.clone() };
    let message = MessageService { intake: intake.clone(), watches: watches.clone() };
    let task = TaskService { intake: intake.clone(), watches: watches.clone() };
    let drain = link::Drain {
        engine: intake.engine.clone(),
        links: link_services.links.clone(),
        leases: link_services.leases.clone(),
        clock: Arc::clone(&link_services.clock),
        stop: parts.stop.clone(),
        tasks: parts.tasks.clone(),
    };
    let registry = RegistryService {
        drain,
        intake: intake.clone(),
        links: link_services.links,
        nonce: AtomicU64::new(1),
        journal: kind,
    };
    let handoffs = Handoffs { intake: intake.clone() };
    let settings = policy::policy(config).handoff;
    let transfers = Transfers {
        handoffs: handoffs.clone(),
        packages: packages.clone(),
        settings: settings.clone(),
    };
    let sessions = packages.sessions.clone();
    let session = SessionService { sessions, packages: packages.clone(), transfers };
    let bridges = Bridges { packages: packages.clone(), settings };
    let handoff = HandoffService { packages, handoffs, bridges };
    let usage = UsageService { intake, watches };
    Server::builder()
        .http2_keepalive_interval(Some(limits.keepalive_interval))
        .http2_keepalive_timeout(Some(limits.keepalive_timeout))
        .http2_max_header_list_size(limits.header_bytes)
        .max_concurrent_streams(limits.streams_per_connection)
        .concurrency_limit_per_connection(limits.calls_per_connection)
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .layer(TraceLayer)
        .layer(ShedLayer::new(limits.concurrent_unary))
        .layer(DeadlineLayer::new(limits.unary_deadline))
        .layer(IdentityLayer::new(verify))
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .add_service(agent_link.server(frame))
        .add_service(consult.server(frame))
        .add_service(content.server(frame))
        .add_service(event.server(frame))
        .add_service(handoff.server(frame))
        .add_service(message.server(frame))
        .add_service(registry.server(frame))
        .add_service(session.server(frame))
        .add_service(task.server(frame))
        .add_service(usage.server(frame))
        .serve_with_incoming_shutdown(listen::incoming(listener, limits.connections), stopping)
        .await?;
    Ok(())
}

/// Tells the engine of consultations nobody listens to any more.
async fn forward_leaving(
    mut gone: mpsc::UnboundedReceiver<AskerLeft>,
    slots: Slots,
    engine: EngineHandle,
    stop: CancellationToken,
) {
    while let Some(Some(AskerLeft { seq })) = stop.run_until_cancelled(gone.recv()).await {
        let is_back = || slots.get(seq).is_some_and(|slot| slot.has_askers());
        if is_back() {
            continue;
        }
        engine.tell(Command::AskerLeft { seq }).await;
        // Somebody who came in between has said so, but maybe before this.
        if is_back() {
            engine.tell(Command::AskerBack { seq }).await;
        }
    }
}

async fn sweep(slots: Slots, uploads: Uploads, stop: CancellationToken) {
    let mut every = tokio::time::interval(SWEEP);
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        slots.sweep();
        uploads.sweep();
    }
}

/// Listens on a unix socket that only this user may open. A socket nobody listens on is left over and replaced.
///
/// # Errors
/// [`Error::SocketInUse`] when a broker answers there.
pub async fn listen(socket: &Path) -> Result<UnixListener, Error> {
    use std::os::unix::fs::PermissionsExt;
    let path = || socket.display().to_string();
    let failed = |source| Error::Listen { path: path(), source };
    if let Some(folder) = socket.parent() {
        secret::private_folder(folder)?;
    }
    if tokio::net::UnixStream::connect(socket).await.is_ok() {
        return Err(Error::SocketInUse { path: path() });
    }
    match fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(socket).map_err(failed)?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

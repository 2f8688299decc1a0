//! Makes the packages that handoffs need, when the rules ask for them.

use broker_proto::{Handoff, Unverified};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

use crate::{
    core::{
        Command, Query, Reply,
        handoff::{
            Built, Command as HandoffCommand, Query as HandoffQuery, Reply as HandoffReply,
            Settings, unverified,
        },
    },
    engine,
    packages::{self, ForReceiver, Packages, Prepared},
};

/// Makes those packages, each in a task of its own: a large one holds up no small one.
#[derive(Debug)]
pub struct Builder {
    pub packages: Packages,
    pub settings: Settings,
    pub wanted: mpsc::Receiver<Box<Handoff>>,
    pub tasks: TaskTracker,
}

impl Builder {
    /// Makes packages until `stop` fires.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        while let Some(Some(handoff)) = stop.run_until_cancelled(self.wanted.recv()).await {
            let making = Box::pin(make(self.packages.clone(), self.settings.clone(), *handoff));
            let stop = stop.clone();
            self.tasks.spawn(async move {
                stop.run_until_cancelled(making).await;
            });
        }
    }
}

/// Makes one, and says so. What cannot be said is found out when its time is over.
async fn make(packages: Packages, settings: Settings, handoff: Handoff) {
    let command = match package(&packages, &settings, &handoff).await {
        Ok(Prepared { info, kept, .. }) => HandoffCommand::Built(Box::new(Built {
            id: handoff.id,
            to: handoff.to,
            package: info.header.id,
            manifest: info.checksum,
            kept,
        })),
        Err(error) => {
            let reason = error.to_string();
            warn!(handoff = %handoff.id, to = %handoff.to, reason, "no package could be made");
            HandoffCommand::NotBuilt { id: handoff.id, to: handoff.to, reason }
        }
    };
    let engine = &packages.intake.engine;
    if let Err(error) = engine.command(Command::Handoff(Box::new(command))).await {
        warn!(handoff = %handoff.id, %error, "a handoff's package is not used");
    }
}

async fn package(
    packages: &Packages,
    settings: &Settings,
    handoff: &Handoff,
) -> Result<Prepared, packages::Error> {
    if let Some(id) = handoff.package {
        return packages.prepared(id, &handoff.session, &handoff.to).await;
    }
    let reason = format!("{}: {}", handoff.trigger.kind.as_str(), handoff.trigger.reasoning);
    let wanted = ForReceiver {
        session: handoff.session.clone(),
        to: handoff.to.clone(),
        level: handoff.level,
        room: settings.room,
        reason,
        is_ahead: false,
        unverified: comes_with(packages, handoff).await?,
    };
    packages.for_receiver(wanted).await
}

/// What others wrote in a session that this handoff brings home.
async fn comes_with(
    packages: &Packages,
    handoff: &Handoff,
) -> Result<Option<Unverified>, packages::Error> {
    if handoff.to != handoff.origin {
        return Ok(None);
    }
    let session = &handoff.session;
    let query = Query::Handoff(HandoffQuery::Away(session.clone()));
    let Reply::Handoff(HandoffReply::Away(away)) = packages.intake.engine.query(query).await?
    else {
        return Err(engine::Error::Unknown.into());
    };
    let entries = packages.sessions.get(session).await?.info.head.entries;
    Ok(unverified(&away, &handoff.to, entries))
}

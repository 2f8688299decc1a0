//! Packages made before somebody asks: when a limit comes near, the work's next model finds one ready.

use std::collections::BTreeMap;

use broker_proto::{
    ModelName, NewPackage, PackageInfo, PreparePackage, Preservation, RenderAsk, SessionId,
    SessionInfo,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Error, Packages};
use crate::{
    core::{
        session::Refusal,
        usage::{Near, Subject},
    },
    session,
};

/// Of a model that comes near its limit: so many of its sessions, the ones that changed last.
const SESSIONS: u32 = 16;
/// Sessions whose last package is remembered; a package too many does no harm.
const REMEMBERED: usize = 4_096;
/// Who made it, for reports.
const MAKER: &str = "broker";

/// Makes those packages.
#[derive(Debug)]
pub struct Ahead {
    packages: Packages,
    near: mpsc::Receiver<Near>,
    /// The version each session was packed at.
    packed: BTreeMap<SessionId, u64>,
}

impl Ahead {
    #[must_use]
    pub fn new(packages: Packages, near: mpsc::Receiver<Near>) -> Self {
        Self { packages, near, packed: BTreeMap::new() }
    }

    /// Makes packages until `stop` fires.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        while let Some(Some(near)) = stop.run_until_cancelled(self.near.recv()).await {
            if let Some(Err(error)) = stop.run_until_cancelled(self.prepare(&near)).await {
                let error: &dyn std::error::Error = &error;
                warn!(error, reason = %near.reason, "no package could be prepared");
            }
        }
    }

    /// One package for each session that the limit concerns.
    async fn prepare(&mut self, near: &Near) -> Result<(), Error> {
        for session in self.sessions(&near.subject).await? {
            if session.head.entries == 0 || self.packed.get(&session.id) == Some(&session.version) {
                continue;
            }
            let Some(next) = self.next(&session.owner.model).await? else {
                warn!(model = %session.owner.model, "a limit is near, and no model of its chain can go on");
                continue;
            };
            match self.pack(&session, next, &near.reason).await {
                Ok(package) => {
                    let (id, to) = (package.header.id, package.header.recipient);
                    info!(session = %session.id, package = %id, to = ?to, "a package is ready");
                    self.remember(session);
                }
                // The others' packages are made all the same.
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    warn!(session = %session.id, error, "no package could be prepared");
                }
            }
        }
        Ok(())
    }

    async fn sessions(&self, subject: &Subject) -> Result<Vec<SessionInfo>, Error> {
        let sessions = &self.packages.sessions;
        match subject {
            Subject::Model(model) => {
                Ok(sessions.list(Some(model.clone()), None, SESSIONS).await?.0)
            }
            // Counted under a name that is no session's: there is nothing to pack.
            Subject::Session(name) => Ok(match SessionId::parse(name) {
                Ok(id) => match sessions.get(&id).await {
                    Ok(session) => vec![session.info],
                    Err(session::Error::Refused(Refusal::Unknown(_))) => Vec::new(),
                    Err(error) => return Err(error.into()),
                },
                Err(_) => Vec::new(),
            }),
        }
    }

    async fn next(&self, owner: &ModelName) -> Result<Option<ModelName>, Error> {
        let status = self.packages.usage(None).await?;
        let of_owner = status.models.into_iter().find(|usage| usage.model == *owner);
        Ok(of_owner.and_then(|usage| usage.next))
    }

    async fn pack(
        &self,
        session: &SessionInfo,
        to: ModelName,
        reason: &str,
    ) -> Result<PackageInfo, Error> {
        let ask = RenderAsk {
            level: Preservation::Complete,
            reader: Some(to),
            allow_missing: true,
            ..RenderAsk::default()
        };
        let reason = format!("usage_limit: {reason}");
        let package = NewPackage { reason, ..NewPackage::default() };
        let prepare = PreparePackage { session: session.id.clone(), ask, package };
        Ok(self.packages.prepare(MAKER.to_owned(), prepare).await?.0)
    }

    fn remember(&mut self, session: SessionInfo) {
        if self.packed.len() >= REMEMBERED {
            self.packed.pop_first();
        }
        self.packed.insert(session.id, session.version);
    }
}

//! Sessions that are offered to this agent: their packages are fetched, verified here, and taken with a hash that was
//! computed here.
//!
//! Invariant: an offer is accepted only when every byte of its package was held against what its sender signed; what the
//! offer itself says of the package is compared and never repeated.
//! Invariant: contents of packages reach no log and no reason.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use broker_proto::{
    AcceptHandoff, Handoff, HandoffId, HandoffOffer, HandoffState, PackageId, PackageInfo,
    WallTime,
    package::{Guard, Refused, open},
};
use tokio::{sync::Semaphore, time::sleep};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::{Client, Error};

/// Packages that are in memory at once; each may have 64 MiB.
const AT_ONCE: usize = 2;
/// Packages that are remembered as taken; of more the one with the lowest nonce is forgotten.
const REMEMBERED: usize = 1024;

/// Why an offered session is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    #[error(transparent)]
    Package(#[from] Refused),
    #[error("the package names no recipient, or another one")]
    Recipient,
    #[error("the package is of another session")]
    Session,
    #[error("this is not the package that was offered")]
    Another,
    #[error("the package is signed by nobody whom the broker trusts")]
    Untrusted,
}

/// What becomes of the offers that an agent gets.
#[derive(Debug)]
pub(super) struct Offers {
    taker: Taker,
    slots: Arc<Semaphore>,
    /// By the package, too: declined for one model of this agent, the next of its models may be asked at once.
    under_way: Arc<Mutex<BTreeSet<(HandoffId, PackageId)>>>,
    stop: CancellationToken,
    _ends_with_this: DropGuard,
}

/// Takes one session over.
#[derive(Debug, Clone)]
struct Taker {
    client: Client,
    /// Between two calls while nothing answers.
    retry: Duration,
    /// Nonces of packages that were taken, and the handoff each was taken for.
    taken: Arc<Mutex<BTreeMap<[u8; 16], HandoffId>>>,
}

/// A package that was verified.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verified {
    manifest: [u8; 32],
    parts: Vec<String>,
    nonce: [u8; 16],
}

impl Offers {
    pub(super) fn new(client: Client, retry: Duration) -> Self {
        let stop = CancellationToken::new();
        Self {
            taker: Taker { client, retry, taken: Arc::default() },
            slots: Arc::new(Semaphore::new(AT_ONCE)),
            under_way: Arc::default(),
            _ends_with_this: stop.clone().drop_guard(),
            stop,
        }
    }

    /// Says no for an agent that leaves, so that nobody waits for it.
    pub(super) fn decline(&self, offer: &HandoffOffer, tracker: &TaskTracker) {
        let (taker, handoff, stop) = (self.taker.clone(), offer.handoff, self.stop.clone());
        tracker.spawn(async move {
            let reason = "this agent drains".to_owned();
            let declined = taker.client.decline_handoff(handoff, reason);
            if let Some(Err(error)) = stop.run_until_cancelled(declined).await {
                tracing::info!(%handoff, %error, "an offer comes to nothing");
            }
        });
    }

    /// Answers an offer apart from the link. One that is being answered is not answered twice.
    pub(super) fn take(&self, offer: HandoffOffer, tracker: &TaskTracker) {
        let key = (offer.handoff, offer.package);
        if !lock(&self.under_way).insert(key) {
            return;
        }
        let (taker, slots) = (self.taker.clone(), self.slots.clone());
        let (under_way, stop) = (self.under_way.clone(), self.stop.clone());
        tracker.spawn(async move {
            let left = Duration::from_millis(offer.until.0.saturating_sub(now().0));
            let answer = async {
                let _slot = slots.acquire().await;
                taker.answer(&offer).await;
            };
            let answer = tokio::time::timeout(left, Box::pin(answer));
            if let Some(Err(_)) = stop.run_until_cancelled(answer).await {
                let HandoffOffer { session, handoff, model, .. } = &offer;
                tracing::warn!(%session, %handoff, to = %model, "an offer was not answered in time");
            }
            lock(&under_way).remove(&key);
        });
    }
}

impl Taker {
    /// Accepts or declines, and says so in the log.
    async fn answer(&self, offer: &HandoffOffer) {
        let HandoffOffer { session, handoff, model, .. } = offer;
        let answered = match self.verified(offer).await {
            Ok(Ok(verified)) => self.accept(offer, verified).await,
            Ok(Err(unfit)) => {
                let reason = unfit.to_string();
                tracing::warn!(%session, %handoff, to = %model, reason, "a session is not taken");
                // It stands against the package, and so against whoever else fetches it.
                let declined = || self.client.decline_for_model(*handoff, reason.clone());
                self.until_heard(declined).await.map(drop)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = answered {
            // Another process of the model was faster, or it is over: nothing is to be done.
            tracing::info!(%session, %handoff, to = %model, %error, "an offer comes to nothing");
        }
    }

    async fn accept(&self, offer: &HandoffOffer, verified: Verified) -> Result<(), Error> {
        let Verified { manifest, parts, nonce } = verified;
        let accept = AcceptHandoff { id: offer.handoff, manifest, confirmed: parts };
        // The same word again is answered the same.
        let accepted = || self.client.accept_handoff(accept.clone());
        let Handoff { id, session, from, to, state, .. } = self.until_heard(accepted).await?;
        tracing::info!(
            %session,
            from = %from.model,
            %to,
            handoff = %id,
            state = state.as_str(),
            "a session is taken over"
        );
        if matches!(state, HandoffState::Accepted | HandoffState::Active | HandoffState::Completed)
        {
            let mut taken = lock(&self.taken);
            taken.insert(nonce, id);
            if taken.len() > REMEMBERED {
                taken.pop_first();
            }
        }
        Ok(())
    }

    /// Fetches the package and holds it against what was signed.
    async fn verified(&self, offer: &HandoffOffer) -> Result<Result<Verified, Unfit>, Error> {
        let info = self.until_heard(|| self.client.package(offer.package)).await?;
        let file = self.until_heard(|| self.client.export_package(offer.package)).await?;
        let (offer, taken) = (offer.clone(), self.taken.clone());
        let check = move || {
            let is_replayed = |nonce: &[u8; 16]| {
                lock(&taken).get(nonce).is_some_and(|before| *before != offer.handoff)
            };
            verify(&file, &offer, &info, now(), &is_replayed)
        };
        // Hashing and unpacking take as long as a package is large.
        let checked = tokio::task::spawn_blocking(check).await;
        Ok(checked.unwrap_or(Err(Unfit::Package(Refused::Malformed("it cannot be checked")))))
    }

    /// Repeats a call until it is answered; whoever waits for it has a time of its own.
    async fn until_heard<T, F>(&self, call: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        loop {
            match call().await {
                Err(error) if error.is_connection() => sleep(self.retry).await,
                Err(Error::Refused { retry_after: Some(after), .. }) => {
                    sleep(after.max(self.retry)).await;
                }
                said => return said,
            }
        }
    }
}

/// Holds a package against what was signed, and against what was offered.
fn verify(
    file: &[u8],
    offer: &HandoffOffer,
    info: &PackageInfo,
    now: WallTime,
    is_replayed: &dyn Fn(&[u8; 16]) -> bool,
) -> Result<Verified, Unfit> {
    if info.signed_by.is_none() {
        return Err(Unfit::Untrusted);
    }
    let opened = open(
        file,
        &Guard {
            now,
            is_trusted: &|key| key == info.signer,
            is_here: &|name| *name == offer.model,
            is_replayed,
            takes_expired: false,
        },
    )?;
    let header = &opened.header;
    if header.recipient.as_ref() != Some(&offer.model) {
        return Err(Unfit::Recipient);
    }
    if header.session.as_ref() != Some(&offer.session) {
        return Err(Unfit::Session);
    }
    if header.id != offer.package || opened.checksum != offer.manifest {
        return Err(Unfit::Another);
    }
    // Each part is compared with its hash here.
    let parts = opened.unpack()?;
    let parts = parts.iter().map(|part| part.name.clone().into_owned()).collect();
    Ok(Verified { manifest: opened.checksum, parts, nonce: header.nonce })
}

fn now() -> WallTime {
    WallTime::from_system(SystemTime::now())
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use broker_proto::{
        ModelName, PackageHeader, Preservation, SessionId,
        package::{RawPart, Signer, pack},
    };

    use super::*;

    const NOW: WallTime = WallTime(1_800_000_000_000);
    const NONCE: [u8; 16] = [9; 16];

    fn header() -> PackageHeader {
        PackageHeader {
            id: PackageId::from_parts(NOW, 1),
            session: SessionId::parse("s").ok(),
            project: String::new(),
            sender: "opus".into(),
            recipient: ModelName::parse("sonnet").ok(),
            level: Preservation::Complete,
            created_at: NOW,
            expires_at: WallTime(NOW.0 + 1_000),
            hops: 0,
            nonce: NONCE,
            reason: String::new(),
        }
    }

    /// A package, what the broker says of it, and the offer that names it.
    fn offered(header: &PackageHeader, signer: &Signer) -> (Vec<u8>, PackageInfo, HandoffOffer) {
        let part = |name: &'static str, bytes: &'static [u8]| RawPart {
            name: name.into(),
            bytes: bytes.into(),
            tokens: 1,
        };
        let parts = [part("task", b"ship it"), part("context", b"{}")];
        let packed = pack(header, &parts, "estimated".into(), signer).unwrap();
        let info = PackageInfo {
            header: header.clone(),
            task: String::new(),
            parts: packed.parts,
            tokenizer: "estimated".into(),
            size_bytes: packed.file.len() as u64,
            checksum: packed.checksum,
            signer: Signer::new(&[7; 32]).public(),
            signed_by: Some("this broker".into()),
            is_imported: false,
            is_expired: false,
            archived_at: None,
        };
        let offer = HandoffOffer {
            handoff: HandoffId::from_parts(NOW, 1),
            session: SessionId::parse("s").unwrap(),
            model: ModelName::parse("sonnet").unwrap(),
            package: self::header().id,
            manifest: packed.checksum,
            until: WallTime(NOW.0 + 500),
        };
        (packed.file, info, offer)
    }

    fn verified(header: &PackageHeader, now: WallTime) -> Result<Verified, Unfit> {
        let (file, info, offer) = offered(header, &Signer::new(&[7; 32]));
        verify(&file, &offer, &info, now, &|_| false)
    }

    #[test]
    fn a_package_as_it_was_signed_is_taken_with_its_own_hash_and_every_part() {
        let (file, info, offer) = offered(&header(), &Signer::new(&[7; 32]));
        let verified = verify(&file, &offer, &info, NOW, &|_| false).unwrap();
        assert_eq!((verified.manifest, verified.nonce), (offer.manifest, NONCE));
        assert_eq!(verified.parts, ["task", "context"]);
    }

    #[test]
    fn a_package_with_any_byte_changed_is_not_taken() {
        let (mut file, info, offer) = offered(&header(), &Signer::new(&[7; 32]));
        for at in 0..file.len() {
            file[at] ^= 1;
            assert!(verify(&file, &offer, &info, NOW, &|_| false).is_err(), "byte {at}");
            file[at] ^= 1;
        }
    }

    #[test]
    fn only_what_was_offered_to_this_model_in_time_and_for_the_first_time_is_taken() {
        let opus = ModelName::parse("opus").unwrap();
        let other = SessionId::parse("t").ok();
        let changed = [
            (
                PackageHeader { recipient: Some(opus.clone()), ..header() },
                Refused::Recipient(opus).into(),
            ),
            (PackageHeader { recipient: None, ..header() }, Unfit::Recipient),
            (PackageHeader { session: other, ..header() }, Unfit::Session),
            (PackageHeader { id: PackageId::from_parts(NOW, 2), ..header() }, Unfit::Another),
        ];
        for (header, unfit) in changed {
            assert_eq!(verified(&header, NOW), Err(unfit));
        }
        let end = header().expires_at;
        assert_eq!(verified(&header(), end), Err(Refused::Expired(end).into()));

        let (file, info, offer) = offered(&header(), &Signer::new(&[7; 32]));
        let again = verify(&file, &offer, &info, NOW, &|nonce| *nonce == NONCE);
        assert_eq!(again, Err(Refused::Replayed.into()));
        let swapped = HandoffOffer { manifest: [0; 32], ..offer.clone() };
        assert_eq!(verify(&file, &swapped, &info, NOW, &|_| false), Err(Unfit::Another));
        let nobody = PackageInfo { signed_by: None, ..info.clone() };
        assert_eq!(verify(&file, &offer, &nobody, NOW, &|_| false), Err(Unfit::Untrusted));
        let stranger = Signer::new(&[8; 32]);
        let (forged, _, _) = offered(&header(), &stranger);
        let refused = Refused::UnknownKey(stranger.public());
        assert_eq!(verify(&forged, &offer, &info, NOW, &|_| false), Err(refused.into()));
    }
}

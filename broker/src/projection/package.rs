//! Rows about packages: what is kept, and the nonces of what must not come back.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};

use broker_proto::{PackageFilter, PackageId, PackageInfo, WallTime};

use super::{
    Error, Projection,
    read::{event_of, stored},
};
use crate::{
    core::{
        Event,
        package::{self, Saved},
    },
    journal::{BatchNo, Record},
};

fn subject(id: PackageId) -> String {
    format!("package/{id}")
}

fn archived(id: PackageId) -> String {
    format!("archived/{id}")
}

fn spent(nonce: &[u8; 16]) -> String {
    format!("spent/{:032x}", u128::from_be_bytes(*nonce))
}

/// Facts that an event about packages changes.
pub(super) fn fold(
    facts: &mut BTreeMap<String, Option<Record>>,
    event: &package::Event,
    record: &Record,
) {
    match event {
        package::Event::Saved(saved) => {
            facts.insert(subject(saved.info.header.id), Some(record.clone()));
        }
        package::Event::Deleted { id, spent: taken, .. } => {
            facts.insert(subject(*id), None);
            facts.insert(archived(*id), None);
            if let Some(taken) = taken {
                facts.insert(spent(&taken.nonce), Some(record.clone()));
            }
        }
        package::Event::Archived { id, .. } => {
            facts.insert(archived(*id), Some(record.clone()));
        }
        package::Event::Forgotten { nonces, .. } => {
            facts.extend(nonces.iter().map(|nonce| (spent(nonce), None)));
        }
        package::Event::Trusted { name, key, .. } => {
            facts.insert(format!("trust/{name}"), key.map(|_| record.clone()));
        }
    }
}

impl Projection {
    /// A package, as of `batch`.
    ///
    /// # Errors
    /// [`Error`] when the rows cannot be read.
    pub async fn package(&self, id: PackageId, batch: BatchNo) -> Result<Option<Saved>, Error> {
        self.at_least(batch).await?;
        let read = move |connection: &mut Connection| {
            let record = fact(connection, &subject(id))?;
            record.map(|record| with_archive(connection, saved(&record)?)).transpose()
        };
        self.reader.call(read).await
    }

    /// One page of packages, newest first, those before `before`; `now` says what has expired. The id is where the next
    /// page begins.
    ///
    /// # Errors
    /// [`Error`] when the rows cannot be read.
    pub async fn packages(
        &self,
        filter: PackageFilter,
        before: Option<PackageId>,
        limit: usize,
        now: WallTime,
        batch: BatchNo,
    ) -> Result<(Vec<Saved>, Option<PackageId>), Error> {
        self.at_least(batch).await?;
        self.reader.call(move |connection| page(connection, &filter, before, limit, now)).await
    }
}

fn page(
    connection: &Connection,
    filter: &PackageFilter,
    before: Option<PackageId>,
    limit: usize,
    now: WallTime,
) -> Result<(Vec<Saved>, Option<PackageId>), Error> {
    // `0` follows `/`; ids sort by their time.
    let before = before.map_or_else(|| "package0".to_owned(), subject);
    let mut statement = connection.prepare_cached(
        "SELECT kind, version, body FROM facts WHERE subject > 'package/' AND subject < ?1
         ORDER BY subject DESC",
    )?;
    let mut rows = statement.query(params![before])?;
    let mut found: Vec<Saved> = Vec::new();
    while let Some(row) = rows.next()? {
        let saved = saved(&stored(row)?)?;
        if !is_shown(&saved.info, filter, now) {
            continue;
        }
        if found.len() == limit {
            let last = found.last().map(|saved| saved.info.header.id);
            return Ok((found, last));
        }
        found.push(with_archive(connection, saved)?);
    }
    Ok((found, None))
}

fn fact(connection: &Connection, subject: &str) -> Result<Option<Record>, Error> {
    let mut statement =
        connection.prepare_cached("SELECT kind, version, body FROM facts WHERE subject = ?1")?;
    Ok(statement.query_row([subject], stored).optional()?)
}

/// With since when its work goes on.
fn with_archive(connection: &Connection, mut saved: Saved) -> Result<Saved, Error> {
    if let Some(record) = fact(connection, &archived(saved.info.header.id))? {
        let Event::Package(event) = event_of(&record)? else { return Err(Error::Damaged) };
        saved.info.archived_at = Some(event.at());
    }
    Ok(saved)
}

fn is_shown(info: &PackageInfo, filter: &PackageFilter, now: WallTime) -> bool {
    let header = &info.header;
    let is = |wanted: bool| wanted == (now >= header.expires_at);
    filter.session.as_ref().is_none_or(|session| header.session.as_ref() == Some(session))
        && filter.project.as_ref().is_none_or(|project| header.project == *project)
        && filter.model.as_ref().is_none_or(|model| {
            header.sender == model.as_str() || header.recipient.as_ref() == Some(model)
        })
        && filter.is_expired.is_none_or(is)
        && filter.created_after.is_none_or(|after| header.created_at > after)
}

fn saved(record: &Record) -> Result<Saved, Error> {
    match event_of(record)? {
        Event::Package(event) => match *event {
            package::Event::Saved(saved) => Ok(*saved),
            _ => Err(Error::Damaged),
        },
        _ => Err(Error::Damaged),
    }
}

#[cfg(test)]
mod tests {
    use broker_proto::ModelName;

    use super::*;
    use crate::{
        core::{
            package::{Spent, sample::info},
            queue::Body,
        },
        projection::tests::Log,
    };

    fn event(event: package::Event) -> Event {
        Event::Package(Box::new(event))
    }

    fn save(number: u64) -> Event {
        let body = Body { size_bytes: info(number).size_bytes, ..Body::default() };
        let saved = Saved { info: info(number), body, at: WallTime(number), of: None };
        event(package::Event::Saved(Box::new(saved)))
    }

    fn numbers(page: &(Vec<Saved>, Option<PackageId>)) -> Vec<u64> {
        page.0.iter().map(|saved| saved.info.header.created_at.0).collect()
    }

    #[tokio::test]
    async fn a_list_is_paged_newest_first_and_filtered() {
        let mut log = Log::new().await;
        let head = log.append(&(1..=5).map(save).collect::<Vec<_>>()).await;
        let projection = log.folded().await;
        let now = WallTime(1003);
        let list = async |filter: PackageFilter, before, limit| {
            projection.packages(filter, before, limit, now, head).await.unwrap()
        };
        let first = list(PackageFilter::default(), None, 2).await;
        assert_eq!(numbers(&first), [5, 4]);
        let second = list(PackageFilter::default(), first.1, 2).await;
        assert_eq!(numbers(&second), [3, 2]);
        let last = list(PackageFilter::default(), second.1, 2).await;
        assert_eq!((numbers(&last), last.1), (vec![1], None));

        let expired = |is_expired| PackageFilter { is_expired, ..PackageFilter::default() };
        assert_eq!(numbers(&list(expired(Some(true)), None, 9).await), [3, 2, 1]);
        assert_eq!(numbers(&list(expired(Some(false)), None, 9).await), [5, 4]);
        let model =
            |name| PackageFilter { model: ModelName::parse(name).ok(), ..PackageFilter::default() };
        assert_eq!(list(model("opus"), None, 9).await.0.len(), 5);
        assert_eq!(list(model("sonnet"), None, 9).await.0.len(), 5);
        assert_eq!(list(model("local"), None, 9).await.0.len(), 0);
        let since = PackageFilter { created_after: Some(WallTime(4)), ..PackageFilter::default() };
        assert_eq!(numbers(&list(since, None, 9).await), [5]);
    }

    /// I-34, and what a restart needs: the packages that are left, the keys, the nonces.
    #[tokio::test]
    async fn a_restart_reads_what_is_left() {
        let mut log = Log::new().await;
        let (two, three) = (info(2).header, info(3).header);
        let at = WallTime(9);
        let spent = Some(Spent { nonce: two.nonce, until: two.expires_at });
        let key = Some(broker_proto::PackageKey([1; 32]));
        let trusted = |name: &str, key| package::Event::Trusted { name: name.into(), key, at };
        let kept = [
            event(package::Event::Deleted { id: two.id, at, spent }),
            event(trusted("laptop", key)),
        ];
        let gone = [
            save(2),
            save(3),
            event(package::Event::Deleted { id: three.id, at, spent: None }),
            event(trusted("old", key)),
            event(trusted("old", None)),
        ];
        let head = log.append(&[&gone[..], &kept[..], &[save(4)]].concat()).await;
        let projection = log.folded().await;
        assert!(projection.package(two.id, head).await.unwrap().is_none());
        assert_eq!(
            projection.package(info(4).header.id, head).await.unwrap().unwrap().info,
            info(4)
        );

        let mut left = Vec::new();
        projection.living(head, |event| left.push(event.clone())).await.unwrap();

        assert_eq!(left.len(), 3, "{left:?}");
        assert!(kept.iter().chain(&[save(4)]).all(|event| left.contains(event)), "{left:?}");

        let of = |id| event(package::Event::Archived { id, at });
        let four = info(4).header.id;
        let head = log.append(&[of(four)]).await;
        let projection = log.folded().await;
        let shown = projection.package(four, head).await.unwrap().unwrap().info.archived_at;
        let (page, _) =
            projection.packages(PackageFilter::default(), None, 9, at, head).await.unwrap();
        assert_eq!((shown, page[0].info.archived_at), (Some(at), Some(at)));
        log.append(&[event(package::Event::Deleted { id: four, at, spent: None })]).await;

        let forgotten = package::Event::Forgotten { nonces: vec![two.nonce], at };
        let head = log.append(&[event(forgotten)]).await;
        let mut left = 0;
        log.folded().await.living(head, |_| left += 1).await.unwrap();
        assert_eq!(left, 1);
    }
}

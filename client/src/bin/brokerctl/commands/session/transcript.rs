//! Transcripts in and out.

use std::{io, path::Path};

use broker_client::{Client, transcript};
use broker_proto::types::{NewSessionEntry, SessionId, SessionPoint};

use crate::{
    cli::ExportFormat,
    commands::{consult::input, handoff::file::replace},
    exit_code::Exit,
    output,
};

/// The entries of a file, or of stdin.
pub(super) fn read(file: &Path) -> Result<Vec<NewSessionEntry>, input::Error> {
    let text = if file == Path::new("-") {
        input::text("stdin".to_owned(), &mut io::stdin().lock())?
    } else {
        input::text_file(file)?
    };
    let entries = transcript::parse_entries(&text)
        .map_err(|wrong| input::Error::Transcript { path: file.to_owned(), wrong })?;
    if entries.is_empty() {
        return Err(input::Error::NoEntries { path: file.to_owned() });
    }
    Ok(entries)
}

/// Writes a session at a point.
pub(crate) async fn export(
    client: &Client,
    id: &SessionId,
    at: &SessionPoint,
    ExportFormat::Jsonl: ExportFormat,
    file: Option<&Path>,
) -> anyhow::Result<Exit> {
    let entries = client.session_entries(id, at, 0, usize::MAX).await?;
    let said: Vec<NewSessionEntry> = entries
        .into_iter()
        .map(|entry| NewSessionEntry {
            kind: entry.kind,
            entry: entry.entry,
            model: entry.model,
            created_at: entry.created_at,
        })
        .collect();
    let text = transcript::write(&said);
    match file {
        None => output::text(&text)?,
        Some(file) => {
            replace(file, text)?;
            let entries = if said.len() == 1 { "entry" } else { "entries" };
            output::note(&format!("{} {entries} in {}", said.len(), file.display()));
        }
    }
    Ok(Exit::Done)
}

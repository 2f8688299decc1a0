//! `handoff report`: a package for people.

use std::path::Path;

use broker_client::Template;
use broker_proto::types::PackageId;

use super::file;
use crate::{
    cli::Global,
    commands::connect,
    exit_code::Exit,
    output::{self, Format},
};

pub(super) async fn run(
    global: &Global,
    id: PackageId,
    template: Option<&Path>,
) -> anyhow::Result<Exit> {
    let (template, unread) = match template.map(read) {
        None => (Template::Configured, None),
        Some(Ok(template)) => (Template::Own(template), None),
        // The plain report is worth more than none.
        Some(Err(problem)) => (Template::Plain, Some(problem)),
    };
    let (markdown, problem) = connect(global).await?.report_package(id, template).await?;
    let problem = unread.or(problem);
    match global.output {
        Format::Json => output::json(&serde_json::json!({
            "id": id.to_string(), "markdown": markdown, "problem": problem,
        }))?,
        Format::Text => {
            if let Some(problem) = problem {
                output::note(&format!("this is the plain report: {problem}"));
            }
            output::text(&markdown)?;
        }
    }
    Ok(Exit::Done)
}

fn read(path: &Path) -> Result<String, String> {
    let bytes = file::read(path).map_err(|err| err.to_string())?;
    String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8", path.display()))
}

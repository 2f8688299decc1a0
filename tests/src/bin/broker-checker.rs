//! `broker-checker`: reads the histories of a run, prints its verdict as one JSON object, and fails on any violation.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use broker_tests::{checker, history};
use clap::Parser;

#[derive(Debug, Parser)]
#[command(version, about = "Judges the histories of one run against the delivery contract")]
struct Arguments {
    /// The histories that the processes of one run wrote.
    #[arg(required = true)]
    histories: Vec<PathBuf>,
}

fn main() -> ExitCode {
    match check(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "broker-checker: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn check(arguments: &Arguments) -> anyhow::Result<bool> {
    let report = checker::check(&history::read(&arguments.histories)?);
    writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&report)?)?;
    Ok(report.is_clean)
}

//! `brokerctl`: the broker from the command line.
//!
//! Results go to stdout, everything else to stderr. A command is a thin face over the broker's services; what it
//! decides itself is what to show and the exit code (`exit_code.rs`).

mod cli;
mod commands;
mod error;
mod exit_code;
mod file;
mod output;

use std::process::ExitCode;

use clap::Parser as _;

use crate::{cli::Cli, exit_code::Exit, output::Format};

fn main() -> ExitCode {
    let cli = match Cli::try_parse_from(cli::with_limits(std::env::args_os())) {
        Ok(cli) => cli,
        // clap prints help to stdout and mistakes to stderr by itself; a closed pipe is not our failure.
        Err(err) => {
            let _ = err.print();
            return if err.use_stderr() { Exit::Usage } else { Exit::Done }.into();
        }
    };
    let format = cli.global.format();
    match run(cli) {
        Ok(exit) => exit.into(),
        Err(err) => {
            let exit = exit_code::of_error(&err);
            if exit != Exit::Done {
                output::note(&error::line(&err));
                if format == Format::Json {
                    // Whoever has closed stdout has read enough; the code says the rest.
                    let _ = output::json(&error::json(&err));
                }
            }
            exit.into()
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(commands::run(cli));
    // A blocked read of stdin has no end of its own; nothing else is running here.
    runtime.shutdown_background();
    done
}

//! What is typed behind `brokerctl handoff`.

use clap::Subcommand;

/// One verb of `handoff`.
#[derive(Debug, Subcommand)]
pub(crate) enum HandoffCommand {}

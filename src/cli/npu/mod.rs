//! `attn npu`: files for a Ryzen AI NPU.

mod build;
mod inspect;

use std::{error::Error, process::ExitCode};

use clap::{Args, Subcommand};

/// Files for a Ryzen AI NPU.
#[derive(Args)]
pub(super) struct Npu {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Build(Box<build::Build>),
    Inspect(inspect::Inspect),
}

impl Npu {
    pub(super) fn run(self) -> Result<ExitCode, Box<dyn Error>> {
        match self.command {
            Command::Build(command) => command.run(),
            Command::Inspect(command) => command.run(),
        }
    }
}

//! The `attn` command: one file per subcommand.

mod validate;

use std::{io, process::ExitCode};

use clap::{Parser, Subcommand};

/// Exit status of a usage or input error.
const USAGE: u8 = 2;

/// Scaled dot-product attention in integers only: int8 in, int8 out, the same bits on every backend.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Validate(validate::Validate),
}

/// Runs the command line; a usage error ends with status 2.
pub(crate) fn run() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Validate(command) => command.run(),
    };
    result.unwrap_or_else(|error| {
        // Whoever read the report has seen enough of it (`attn validate | head`).
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            return ExitCode::SUCCESS;
        }
        eprintln!("attn: {error}");
        ExitCode::from(USAGE)
    })
}

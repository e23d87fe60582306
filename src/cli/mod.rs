//! The `attn` command: one file per subcommand.

mod bench;
mod compare;
mod doctor;
mod input;
mod interrupt;
mod npu;
mod progress;
mod run;
mod validate;

use std::{
    error::Error,
    io::{self, Write as _},
    process::ExitCode,
};

use attn::text::printable;
use clap::{Parser, Subcommand, error::ErrorKind};

/// Exit status of a usage or input error.
const USAGE: u8 = 2;

/// Characters of a message: what a file or an argument says can be of any length.
const LONGEST: usize = 1500;

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
    Run(run::Run),
    Compare(compare::Compare),
    Bench(bench::Bench),
    Npu(npu::Npu),
    Doctor(doctor::Doctor),
}

/// Runs the command line; a usage error ends with status 2.
pub(crate) fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // What was asked for: --help, --version, or nothing.
        Err(text) if !text.use_stderr() => {
            return text.print().map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS);
        }
        Err(text) if text.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => text.exit(),
        Err(error) => return refuse(&one_line(&error.to_string())),
    };
    let result = match cli.command {
        Command::Validate(command) => command.run(),
        Command::Run(command) => command.run(),
        Command::Compare(command) => command.run(),
        Command::Bench(command) => command.run(),
        Command::Npu(command) => command.run(),
        Command::Doctor(command) => command.run(),
    };
    result.unwrap_or_else(|error| failed(&*error))
}

fn failed(error: &(dyn Error + 'static)) -> ExitCode {
    // Whoever read the report has seen enough of it (`attn validate | head`).
    if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    refuse(&error.to_string())
}

/// Says in one line what is wrong, to whoever still listens.
fn refuse(error: &str) -> ExitCode {
    say(&shortened(&printable(error)));
    ExitCode::from(USAGE)
}

/// A line on stderr. Nobody has to read it.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "attn: {text}");
}

/// The beginning and the end of a long text: what is wrong, and what was expected.
fn shortened(text: &str) -> String {
    let places: Vec<_> = text.char_indices().map(|(at, _)| at).collect();
    if places.len() <= LONGEST {
        return text.to_owned();
    }
    let (head, tail) = (places[LONGEST * 2 / 3], places[places.len() - LONGEST / 3]);
    format!("{} [{} characters left out] {}", &text[..head], places.len() - LONGEST, &text[tail..])
}

/// What clap says in several lines: `error: WHAT`, the arguments or values it is about, usage, and how to get help.
fn one_line(error: &str) -> String {
    let lines = error.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("Usage:"));
    lines.fold(String::new(), |text, line| match text.chars().last() {
        None => line.strip_prefix("error: ").unwrap_or(line).to_owned(),
        Some(':') => text + " " + line,
        Some('>') if line.starts_with(['-', '<']) => text + ", " + line,
        Some(_) => text + "; " + line,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_errors_are_one_line() {
        for (arguments, expected) in [
            (
                &["run"][..],
                "the following required arguments were not provided: --input <IN.npz>, --output <OUT.npz>; For more \
                 information, try '--help'.",
            ),
            (
                &["validate", "--backend", "gpu"],
                "invalid value 'gpu' for '--backend <NAME>'; [possible values: scalar, avx512-vnni, avx512-bw, avx-vnni, avx2, \
                 kernel, aie2-model, npu, auto]; tip: a similar value exists: 'npu'; For more information, try '--help'.",
            ),
            (
                &["compre"],
                "unrecognized subcommand 'compre'; tip: a similar subcommand exists: 'compare'; For more information, try \
                 '--help'.",
            ),
        ] {
            let error = Cli::try_parse_from([&["attn"], arguments].concat()).err().expect("an error");
            assert_eq!(one_line(&error.to_string()), expected);
        }
    }
}

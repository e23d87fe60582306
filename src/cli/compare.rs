use std::{
    error::Error,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use attn::{
    compare::{Comparison, compare},
    npz::Output,
};
use clap::Args;

use super::printable;

/// Print the metrics between two outputs: correlation, mean and maximum errors, shares equal and within ±1 and ±5.
///
/// They count in steps of the first file's output scale, head by head: what the second file holds is rounded to such
/// steps, as the first one was (with equal scales the integers themselves are compared). If only the second one is int8,
/// its steps count. Two float outputs are not rounded; a step is then the second one's largest magnitude of each head / 127.
///
/// Exit status: 0 if the two were compared, whatever they differ by; 2 for a usage or input error.
#[derive(Args)]
#[command(after_help = "\
Examples:
  attn compare out.npz expected.npz
  attn compare out.npz torch.npz --json | python3 -c 'import json, sys; print(json.load(sys.stdin)[\"overall\"][\"equal\"])'

Each file is an .npz archive as `attn run` writes it, or numpy.savez:
  out       [.., queries, d]: int8, or float16, float32, float64; of the same shape in both
  out_scale beside int8: value = integer * scale; a number, or one per head")]
pub(super) struct Compare {
    /// The output.
    #[arg(value_name = "A.npz")]
    got: PathBuf,
    /// The output that is expected.
    #[arg(value_name = "B.npz")]
    expected: PathBuf,
    /// Print one JSON object: shape, step, and every figure of all heads and of each.
    #[arg(long)]
    json: bool,
}

impl Compare {
    pub(super) fn run(self) -> Result<ExitCode, Box<dyn Error>> {
        let files = printable(&format!("{} against {}", self.got.display(), self.expected.display()));
        let comparison = compare(&Output::read(&self.got)?, &Output::read(&self.expected)?);
        let comparison = comparison.map_err(|error| format!("{files}: {error}"))?;
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut out, &comparison).map_err(io::Error::from)?;
            writeln!(out)?;
        } else {
            writeln!(out, "{files}\none step: {}", comparison.step)?;
            writeln!(out, "{}\n{comparison}", Comparison::heading())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

use std::{
    error::Error,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use attn::{
    backend::BackendError,
    problem::ProblemError,
    suite::{self, Case, CaseError, CaseReport, Expectation, Report, Skipped, libtorch},
};
use attn_ref::tolerance;
use clap::Args;

use super::{
    input::{self, BackendArgument, MaskArguments},
    printable,
    progress::Bar,
};

/// Compare a backend's int8 attention with float64 attention.
///
/// Without --input: the built-in suite (the users' acceptance data, raw integers, real Whisper-base heads, hard cases).
/// With it: the truth is float64 attention on the same int8 tensors, dequantised; the output scale its largest magnitude / 127.
///
/// Cases of the suite with boolean masks, or of sizes that an xclbin was not built for, are skipped, and listed so, on a backend that
/// takes none.
///
/// Exit status: 0 if every case passes, 1 if one fails, 2 for a usage or input error.
#[derive(Args)]
#[command(after_help = format!("\
Examples:
  attn validate
  attn validate --input qkv.npz --json > report.json

{}", input::FORMAT))]
pub(super) struct Validate {
    /// Validate on these tensors instead of the built-in suite.
    #[arg(long, value_name = "FILE.npz")]
    input: Option<PathBuf>,
    #[command(flatten)]
    backend: BackendArgument,
    #[command(flatten)]
    masks: MaskArguments,
    /// Print one JSON object: version, backend, libtorch, passed, skipped, and every figure of every case and head.
    #[arg(long)]
    json: bool,
}

impl Validate {
    pub(super) fn run(self) -> Result<ExitCode, Box<dyn Error>> {
        let mut backend = self.backend.open()?;
        // The built-in cases are short.
        let mut queries = None;
        let cases = match &self.input {
            None => suite::built_in(),
            Some(path) => {
                let (problem, _) = self.masks.read(path, &*backend)?;
                queries = Some(2 * problem.heads * problem.queries);
                vec![Case {
                    group: "input",
                    name: printable(&path.display().to_string()),
                    tolerance: tolerance::TRUTH,
                    beside: None,
                    problem: Box::new(move || Ok((problem, Expectation::Dequantised))),
                }]
            }
        };
        input::start_threads()?;
        let mut out = io::stdout().lock();
        if !self.json {
            writeln!(out, "backend: {}", backend.name())?;
            let left_out =
                || "libtorch is left out (`cargo xtask libtorch`, then build with `--features torch`)".to_owned();
            writeln!(out, "reference: {}\n{}", libtorch().unwrap_or_else(left_out), CaseReport::heading())?;
        }
        let mut reports = Vec::with_capacity(cases.len());
        let mut skipped = Vec::new();
        for case in cases {
            let name = case.name.clone();
            let report = {
                let bar = queries.map(|queries| Bar::new("validating", queries));
                suite::run(case, &mut *backend, &|queries| bar.iter().for_each(|bar| bar.add(queries)))
            };
            let report = match report {
                Ok(report) => report,
                // The suite has masks and sizes that not every backend takes.
                Err(CaseError::Problem(ProblemError::Backend(
                    error @ (BackendError::Mask(_) | BackendError::Room { .. }),
                ))) if self.input.is_none() => {
                    if !self.json {
                        writeln!(out, "SKIPPED {name}: {error}")?;
                    }
                    skipped.push(Skipped { name, reason: error.to_string() });
                    continue;
                }
                Err(error) => return Err(format!("{name}: {error}").into()),
            };
            if !self.json {
                writeln!(out, "{report}")?;
                if self.input.is_some() && report.heads > 1 {
                    report.heads().try_for_each(|head| writeln!(out, "{head}"))?;
                }
            }
            reports.push(report);
        }
        let report = Report::new(backend.name(), reports, skipped);
        if self.json {
            serde_json::to_writer_pretty(&mut out, &report).map_err(io::Error::from)?;
            writeln!(out)?;
        } else {
            writeln!(out, "\n{report}")?;
        }
        Ok(if report.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

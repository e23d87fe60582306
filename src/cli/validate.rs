use std::{
    error::Error,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use attn::{
    backend::BackendKind,
    npz,
    suite::{self, Case, CaseReport, Problem, Report},
};
use attn_ref::tolerance;
use clap::Args;

/// Compare a backend's int8 attention with float64 attention.
///
/// Without --input: the built-in suite (the users' acceptance data, raw integers, real Whisper-base heads, hard cases).
///
/// Exit status: 0 if every case passes, 1 if one fails, 2 for a usage or input error.
#[derive(Args)]
#[command(after_help = "Examples:
  attn validate
  attn validate --input qkv.npz --json > report.json

FILE.npz holds q, k and v, the last two dimensions [sequence, dimension], leading ones are heads: float16, float32 or
float64 (quantised per head), or int8 with q_scale, k_scale and v_scale (a number, or one per head).")]
pub(super) struct Validate {
    /// Validate on these tensors instead of the built-in suite.
    #[arg(long, value_name = "FILE.npz")]
    input: Option<PathBuf>,
    /// What computes the integers: scalar (the specification).
    #[arg(long, value_name = "NAME", default_value = "scalar")]
    backend: BackendKind,
    /// Print one JSON object: version, backend, passed, and every figure of every case and head.
    #[arg(long)]
    json: bool,
}

impl Validate {
    pub(super) fn run(self) -> Result<ExitCode, Box<dyn Error>> {
        let cases = match self.input {
            None => suite::built_in(),
            Some(path) => {
                let problem = Problem::from_file(npz::read(&path)?)?;
                vec![Case {
                    group: "input",
                    name: path.display().to_string(),
                    tolerance: tolerance::TRUTH,
                    problem: Box::new(move || Ok(problem.clone())),
                }]
            }
        };
        let mut backend = self.backend.open();
        let mut out = io::stdout().lock();
        if !self.json {
            writeln!(out, "backend: {}\n{}", backend.name(), CaseReport::HEADING)?;
        }
        let mut reports = Vec::with_capacity(cases.len());
        for case in &cases {
            let report = suite::run(case, &mut *backend).map_err(|error| format!("{}: {error}", case.name))?;
            if !self.json {
                writeln!(out, "{report}")?;
            }
            reports.push(report);
        }
        let report = Report::new(backend.name(), reports);
        if self.json {
            serde_json::to_writer_pretty(&mut out, &report)?;
            writeln!(out)?;
        } else {
            writeln!(out, "\n{report}")?;
        }
        Ok(if report.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

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
use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};

/// Compare a backend's int8 attention with float64 attention.
///
/// Without --input: the built-in suite (the users' acceptance data, raw integers, real Whisper-base heads, hard cases).
/// With it: the truth is float64 attention on the same int8 tensors, dequantised; the output scale its largest magnitude / 127.
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
    /// What computes the integers.
    #[arg(long, value_name = "NAME", default_value = "scalar", value_parser = backends())]
    backend: BackendKind,
    /// Print one JSON object: version, backend, passed, and every figure of every case and head.
    #[arg(long)]
    json: bool,
}

impl Validate {
    pub(super) fn run(self) -> Result<ExitCode, Box<dyn Error>> {
        let cases = match &self.input {
            None => suite::built_in(),
            Some(path) => {
                let problem = Problem::from_file(npz::read(path)?)?;
                vec![Case {
                    group: "input",
                    name: path.display().to_string(),
                    tolerance: tolerance::TRUTH,
                    beside: None,
                    problem: Box::new(move || Ok(problem)),
                }]
            }
        };
        let mut backend = self.backend.open();
        let mut out = io::stdout().lock();
        if !self.json {
            writeln!(out, "backend: {}\n{}", backend.name(), CaseReport::heading())?;
        }
        let mut reports = Vec::with_capacity(cases.len());
        for case in cases {
            let name = case.name.clone();
            let report = suite::run(case, &mut *backend).map_err(|error| format!("{name}: {error}"))?;
            if !self.json {
                writeln!(out, "{report}")?;
                if self.input.is_some() && report.heads > 1 {
                    report.heads().try_for_each(|head| writeln!(out, "{head}"))?;
                }
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

/// Accepts the names of the backends there are.
fn backends() -> impl TypedValueParser<Value = BackendKind> {
    PossibleValuesParser::new(BackendKind::ALL.map(BackendKind::name)).try_map(|name| name.parse::<BackendKind>())
}

use std::{
    error::Error,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use attn::{
    backend::BackendError,
    file,
    problem::ProblemError,
    report::{CasePictures, Environment, page},
    suite::{self, Case, CaseError, CaseReport, Expectation, Report, Skipped, libtorch},
};
use attn_cpu::start_threads;
use attn_ref::tolerance;
use clap::Args;

use super::{
    input::{self, BackendArgument, MaskArguments, of_file},
    interrupt, printable,
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
/// With --report, the same as one page of HTML, with pictures of every case's worst heads and of all that fail: heat maps of the error,
/// histograms, float against integer. It needs nothing but a browser, and is written whatever the verdict is.
///
/// Exit status: 0 if every case passes, 1 if one fails, 2 for a usage or input error, or if the report cannot be written: what was there
/// before is then still there.
#[derive(Args)]
#[command(after_help = format!("\
Examples:
  attn validate
  attn validate --input qkv.npz --json > report.json
  attn validate --input qkv.npz --report report.html

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
    /// Write a page of HTML, too; a file that is there is replaced.
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

/// What is printed to: where a report is to be written, too, whoever closed stdout still gets that, and the error comes last.
struct Printed<W> {
    out: W,
    is_patient: bool,
    failed: Option<io::Error>,
}

impl<W: Write> Write for Printed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.out.write(bytes) {
            Err(error) if self.is_patient && error.kind() != io::ErrorKind::Interrupted => {
                self.failed.get_or_insert(error);
                Ok(bytes.len())
            }
            written => written,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Validate {
    pub(super) fn run(self) -> Result<ExitCode, Box<dyn Error>> {
        if let Some(path) = &self.report {
            interrupt::handle()?;
            self.backend.check_other(path, self.input.as_deref())?;
        }
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
        start_threads()?;
        if let Some(path) = &self.report {
            input::check_writable(path)?;
        }
        let mut out = Printed { out: io::stdout().lock(), is_patient: self.report.is_some(), failed: None };
        if !self.json {
            writeln!(out, "backend: {}", backend.name())?;
            let left_out =
                || "libtorch is left out (`cargo xtask libtorch`, then build with `--features torch`)".to_owned();
            writeln!(out, "reference: {}\n{}", libtorch().unwrap_or_else(left_out), CaseReport::heading())?;
        }
        let mut reports = Vec::with_capacity(cases.len());
        let mut skipped = Vec::new();
        let mut pictures = Vec::new();
        for case in cases {
            let name = case.name.clone();
            let mut of_case = self.report.is_some().then(CasePictures::default);
            let report = {
                let bar = queries.map(|queries| Bar::new("validating", queries));
                let progress = |queries| bar.iter().for_each(|bar| bar.add(queries));
                suite::run(case, &mut *backend, &progress, &mut |head| {
                    if let Some(of_case) = &mut of_case {
                        of_case.add(head);
                    }
                })
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
            pictures.extend(of_case);
        }
        let report = Report::new(backend.name(), reports, skipped);
        if self.json {
            serde_json::to_writer_pretty(&mut out, &report).map_err(io::Error::from)?;
            writeln!(out)?;
        } else {
            writeln!(out, "\n{report}")?;
        }
        if let Some(path) = &self.report {
            let page = page(&report, &pictures, &Environment::here(&*backend, self.input.as_deref()));
            interrupt::finish(|| file::replace(path, page.as_bytes())).map_err(of_file(path))?;
        }
        // The report is there for whoever closed stdout, and its verdict is the status.
        if let Some(error) = out.failed.filter(|error| error.kind() != io::ErrorKind::BrokenPipe) {
            return Err(error.into());
        }
        Ok(if report.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

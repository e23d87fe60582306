use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
};

use attn::{
    backend::BackendKind,
    bench::{self, Environment, Options, Report, Shape},
};
use attn_cpu::MAX_THREADS;
use clap::{Args, value_parser};

use super::input::{NpuArguments, backends};

/// Measure every backend: speed beside libtorch's and the CPU's peak, and accuracy beside it.
///
/// Every contestant computes once in each of several rounds; times are medians. The workloads are one 64x64x64 tile, 64 tiles,
/// a Whisper-base layer, other dimensions, and one query of 8 heads against many keys; each with int8 in and out, and with
/// float32 in and out (-f32io). Peers of the int8 ones compute on the dequantised integers. libtorch is a peer where it is
/// built in (feature torch); its plain attention is left out where the scores would be more than 1 GiB in float32.
///
/// Exit status: 0 if all was measured, 2 for a usage error or a backend that this CPU does not have.
#[derive(Args)]
#[command(after_help = "\
Examples:
  attn bench
  attn bench --shape 8x1500x1500x64 --threads 2 --backend auto
  attn bench --json > bench.json

JSON: environment (cpu, flags, cores, threads, attn, libtorch, os, rounds, peaks in multiply-accumulates per second), and results, an
array of {workload, backend, threads, rounds, median_ns, mac_per_s, peak_mac_per_s, peak_fraction, ratio_torch_f32,
max_error_lsb, mean_error_lsb, within_1_lsb, times (of an NPU, in words)}; a ratio is null without libtorch.")]
pub(super) struct Bench {
    /// Measure normal numbers of this shape instead: heads, queries, keys, head dimension.
    #[arg(long, value_name = "HxMxNxD")]
    shape: Option<Shape>,
    /// Threads that everybody computes on; the specification and the NPU's kernels always have one.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u16).range(1..=MAX_THREADS as i64))]
    threads: u16,
    /// Measure this backend only; may be given several times. Peers are measured always; `kernel` and `aie2-model`, the NPU's
    /// kernels run on this CPU, and `npu` only if they are named.
    #[arg(long = "backend", value_name = "NAME", value_parser = backends())]
    backends: Vec<BackendKind>,
    #[command(flatten)]
    npu: NpuArguments,
    /// Rounds. Of calls that take long the specification and the NPU's kernels have three at most.
    #[arg(long, value_name = "N", default_value_t = 21, value_parser = value_parser!(u32).range(1..=1_000_000))]
    rounds: u32,
    /// Print one JSON object instead of tables.
    #[arg(long)]
    json: bool,
}

impl Bench {
    pub(super) fn run(self) -> Result<ExitCode, Box<dyn Error>> {
        let backends = if self.backends.is_empty() { bench::available() } else { self.backends };
        // Before the first line.
        let npu = self.npu.options();
        // One backend that they are for is enough.
        if !backends.contains(&BackendKind::Npu) {
            backends.iter().try_for_each(|backend| backend.check(&npu))?;
        }
        for backend in &backends {
            bench::open(*backend, &npu)?;
        }
        bench::set_threads(self.threads)?;
        let options = Options { threads: self.threads, rounds: self.rounds, backends, npu };
        let mut report = Report::new(Environment::of(&options));
        let mut out = io::stdout().lock();
        if !self.json {
            writeln!(out, "{}", report.environment)?;
        }
        for workload in self.shape.map_or_else(bench::workloads, bench::of_shape) {
            let rows = bench::measure(&workload, &options)?;
            if !self.json {
                writeln!(out, "\n{rows}")?;
            }
            report.add(rows);
        }
        if self.json {
            serde_json::to_writer_pretty(&mut out, &report).map_err(io::Error::from)?;
            writeln!(out)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

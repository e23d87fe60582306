//! What was measured, as a table for people and as JSON for programs.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use super::{
    measure::{Options, Peak},
    torch,
    workload::Workload,
};
use crate::{machine::Machine, table::percent};

/// One contestant on one workload.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Name of the workload.
    pub workload: String,
    /// Name of the backend or of the peer.
    pub backend: String,
    /// Threads that it computes on.
    pub threads: u16,
    /// Rounds that it was measured in: of a long workload the specification and the NPU's kernels have few.
    pub rounds: usize,
    /// Median time of a call, in nanoseconds.
    pub median_ns: f64,
    /// Multiply-accumulates of the workload per second of that time.
    pub mac_per_s: f64,
    /// The peak of the instruction that the backend multiplies with; for peers, the specification and the NPU's kernels, that
    /// of the fastest one that the CPU has. None on a CPU without a measured instruction.
    pub peak_mac_per_s: Option<f64>,
    /// `mac_per_s / peak_mac_per_s`
    pub peak_fraction: Option<f64>,
    /// Time relative to libtorch's `scaled_dot_product_attention` in float32, the median over rounds of the ratio within a
    /// round. None without libtorch.
    pub ratio_torch_f32: Option<f64>,
    /// Largest error against float64 attention over the same inputs, of the worst head, as the next two; in steps of the
    /// largest magnitude of the head's true output / 127. Of an int8 output, up to half a step is its own rounding.
    pub max_error_lsb: f64,
    /// Mean absolute error.
    pub mean_error_lsb: f64,
    /// Share of elements with an error of at most one step, `0..=1`.
    pub within_1_lsb: f64,
    /// Of an NPU: how long dispatches took to pack, on the device, and so on, in words.
    pub times: Option<String>,
}

/// All contestants on one workload.
#[derive(Clone, Debug)]
pub struct Rows {
    /// The workload.
    pub workload: Workload,
    /// The contestants, backends first.
    pub rows: Vec<Row>,
    /// Backends that do not take it, and why.
    pub left_out: Vec<String>,
    /// The peak of every instruction set that the CPU has, measured in the same rounds.
    pub peaks: Vec<Peak>,
}

impl fmt::Display for Rows {
    /// A small table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.workload)?;
        writeln!(f, "  backend                   time    GMAC/s  of peak   ratio    max   mean        ±1")?;
        for row in &self.rows {
            let time = if row.median_ns < 1e6 {
                format!("{:.2} µs", row.median_ns / 1e3)
            } else {
                format!("{:.2} ms", row.median_ns / 1e6)
            };
            let peak = row.peak_fraction.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0));
            let ratio = row.ratio_torch_f32.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}"));
            write!(
                f,
                "  {:<18}{time:>12}{:>10.1}{peak:>9}{ratio:>8}{:>7.2}{:>7.3}{:>8} %",
                // What an NPU's name says of it is below.
                if row.backend.starts_with("npu (") { "npu" } else { &row.backend },
                row.mac_per_s / 1e9,
                row.max_error_lsb,
                row.mean_error_lsb,
                percent(row.within_1_lsb),
            )?;
            if self.rows.iter().any(|other| other.rounds > row.rounds) {
                write!(f, "  {} rounds only", row.rounds)?;
            }
            writeln!(f)?;
        }
        for (backend, times) in self.rows.iter().filter_map(|row| Some((&row.backend, row.times.as_ref()?))) {
            writeln!(f, "  {backend}: {times}")?;
        }
        self.left_out.iter().try_for_each(|why| writeln!(f, "  left out: {why}"))?;
        f.write_str("  peaks:")?;
        for (i, peak) in self.peaks.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma} {} {:.1}", peak.isa.name(), peak.macs_per_second / 1e9)?;
        }
        f.write_str(if self.peaks.is_empty() { " none is known of this CPU" } else { " GMAC/s" })
    }
}

/// Where and how it was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Environment {
    /// The CPU, as the operating system names it, with its family and model: one name is given to several generations.
    pub cpu: String,
    /// Which of the instructions it has that contestants are fast with, as the operating system names them.
    pub flags: Vec<&'static str>,
    /// Cores that this process may use.
    pub cores: usize,
    /// Threads that everybody computed on who can.
    pub threads: u16,
    /// Version of this package.
    pub attn: &'static str,
    /// Version of libtorch, if it is built in.
    pub libtorch: Option<&'static str>,
    /// Operating system and architecture.
    pub os: String,
    /// Rounds.
    pub rounds: u32,
    /// Multiply-accumulates per second of each instruction set, on all threads together: the fastest of the workloads'
    /// medians.
    pub peaks: BTreeMap<&'static str, f64>,
}

impl Environment {
    /// This machine; no peak is measured yet.
    #[must_use]
    pub fn of(options: &Options) -> Self {
        let Machine { cpu, flags, cores, os } = Machine::this();
        Self {
            cpu,
            flags,
            cores,
            threads: options.threads,
            attn: env!("CARGO_PKG_VERSION"),
            libtorch: torch::VERSION,
            os,
            rounds: options.rounds,
            peaks: BTreeMap::new(),
        }
    }
}

impl fmt::Display for Environment {
    /// Machine and versions, and what the columns mean.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.threads == 1 { "" } else { "s" };
        writeln!(f, "{}, {} cores, {}; {} thread{plural}", self.cpu, self.cores, self.os, self.threads)?;
        if !self.flags.is_empty() {
            writeln!(f, "{}", self.flags.join(" "))?;
        }
        match self.libtorch {
            Some(version) => writeln!(f, "attn {}, libtorch {version}", self.attn)?,
            None => writeln!(
                f,
                "attn {}; libtorch is left out (`cargo xtask libtorch`, then build with `--features torch`), so there are no \
                 ratios",
                self.attn
            )?,
        }
        writeln!(f, "time: median of {} interleaved rounds; ratio: to torch-sdpa-f32, within a round", self.rounds)?;
        writeln!(
            f,
            "of peak: of the backend's instruction; for peers, scalar and the NPU's kernels, of the CPU's fastest one"
        )?;
        write!(
            f,
            "max, mean, ±1: error against float64 attention over the same inputs, worst head; 1 is a 127th of the largest \
             magnitude of the head's output, an int8 output is rounded to it"
        )
    }
}

/// Everything that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where and how.
    pub environment: Environment,
    /// Every contestant on every workload.
    pub results: Vec<Row>,
}

impl Report {
    /// Nothing measured yet.
    #[must_use]
    pub fn new(environment: Environment) -> Self {
        Self { environment, results: Vec::new() }
    }

    /// Takes what was measured of a workload.
    pub fn add(&mut self, rows: Rows) {
        for Peak { isa, macs_per_second } in rows.peaks {
            let peak = self.environment.peaks.entry(isa.name()).or_insert(macs_per_second);
            *peak = peak.max(macs_per_second);
        }
        self.results.extend(rows.rows);
    }
}

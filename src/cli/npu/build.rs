use std::{
    error::Error,
    io::{self, Write},
    ops::ControlFlow,
    path::PathBuf,
    process::ExitCode,
};

use attn_npu::{
    build::{self, BuildError, Outcome, Step, Toolchain},
    design::{Design, Device, Form, STANDARD},
};
use clap::{Args, ValueEnum};

use crate::cli::{interrupt, say};

/// Build what an NPU loads: an xclbin, its instructions, and a manifest of what they were made of.
///
/// It needs Peano (`PEANO_INSTALL_DIR`, or the package llvm-aie of a Python environment), mlir-aie (`aiecc` in PATH, or the
/// package `mlir_aie`) and XRT's `xclbinutil`; docs/npu.md says how they are had. Nothing is built again that is unchanged, and
/// nothing is left half-written.
///
/// Exit status: 0 if the products are there; 1 if a tool failed; 2 for a usage error, a design that the hardware cannot do, a
/// missing tool, or a product that is not for the design; 130 after Ctrl-C.
#[derive(Args)]
#[command(after_help = "\
Examples:
  attn npu build                                        # a layer of Whisper-base, 16 cores
  attn npu build --config tiles-array --out npu
  attn npu build --columns 1 --tiles 32 --dry-run       # the steps, without any tool

DIR then has attn-NAME.xclbin, attn-NAME.insts.bin and attn-NAME.json.")]
pub(super) struct Build {
    /// A standard design: tile-core, tile-column, tile-array, tiles-array, sequence-core, whisper-base.
    #[arg(long, value_name = "NAME", default_value = "whisper-base", value_parser = standard,
        conflicts_with_all = ["device", "columns", "rows", "dim", "depth", "tiles", "heads", "queries", "keys"])]
    config: (&'static str, Design),
    /// The NPU of another design.
    #[arg(long, value_enum, value_name = "NPU")]
    device: Option<Npu>,
    /// Its columns; all of the device by default.
    #[arg(long, value_name = "N")]
    columns: Option<usize>,
    /// Cores of each column.
    #[arg(long, value_name = "N")]
    rows: Option<usize>,
    /// Head dimension, rounded up to what is stored.
    #[arg(long, value_name = "D")]
    dim: Option<usize>,
    /// Objects of a kind in a core: 2 move one while the other is computed.
    #[arg(long, value_name = "N")]
    depth: Option<usize>,
    /// Tiles for each core and dispatch.
    #[arg(long, value_name = "N", conflicts_with_all = ["heads", "queries", "keys"])]
    tiles: Option<usize>,
    /// Whole heads: how many.
    #[arg(long, value_name = "H", requires_all = ["queries", "keys"])]
    heads: Option<usize>,
    /// Queries of a head.
    #[arg(long, value_name = "M", requires = "heads")]
    queries: Option<usize>,
    /// Keys of a head.
    #[arg(long, value_name = "N", requires = "heads")]
    keys: Option<usize>,
    /// Where the products go.
    #[arg(long, value_name = "DIR", default_value = "npu")]
    out: PathBuf,
    /// Print the steps, and run none.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Npu {
    Npu1,
    Npu2,
}

fn standard(name: &str) -> Result<(&'static str, Design), String> {
    STANDARD.into_iter().find(|(standard, _)| *standard == name).ok_or_else(|| {
        let names: Vec<_> = STANDARD.into_iter().map(|(name, _)| name).collect();
        format!("expected {}", names.join(", "))
    })
}

impl Build {
    /// The design, and what its products are called.
    fn design(&self) -> (String, Design) {
        let numbers = [self.columns, self.rows, self.dim, self.depth, self.tiles, self.heads];
        if self.device.is_none() && numbers.iter().all(Option::is_none) {
            let (name, design) = self.config;
            return (name.to_owned(), design);
        }
        let device = match self.device {
            Some(Npu::Npu2) => Device::Npu2,
            Some(Npu::Npu1) | None => Device::Npu1,
        };
        let form = match (self.heads, self.queries, self.keys) {
            (Some(heads), Some(queries), Some(keys)) => Form::Sequence { heads, queries, keys },
            _ => Form::Tiles { per_core: self.tiles.unwrap_or(1) },
        };
        let design = Design {
            device,
            columns: self.columns.unwrap_or(device.columns()),
            rows: self.rows.unwrap_or(4),
            dim: self.dim.map_or(64, |dim| dim.checked_next_multiple_of(16).unwrap_or(dim)),
            depth: self.depth.unwrap_or(2),
            form,
        };
        let Design { columns, rows, dim, depth, .. } = design;
        let form = match form {
            Form::Tiles { per_core } => format!("tiles{per_core}"),
            Form::Sequence { heads, queries, keys } => format!("sequence-{heads}x{queries}x{keys}"),
        };
        let depth = if depth == 2 { String::new() } else { format!("-depth{depth}") };
        (format!("{}-{columns}x{rows}-d{dim}-{form}{depth}", device.name()), design)
    }

    pub(super) fn run(self) -> Result<ExitCode, Box<dyn Error>> {
        let (name, design) = self.design();
        design.check().map_err(|error| format!("design {name}: {error}"))?;
        let build = build::Build { name, design, out: self.out };
        let mut out = io::stdout().lock();
        if self.dry_run {
            let tools = Toolchain::find().unwrap_or_else(|_| Toolchain::unfound());
            for (number, step) in (1..).zip(build.steps(&tools)) {
                writeln!(out, "{number}. {step}")?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        let tools = Toolchain::find()?;
        for (pinned, got) in tools.unpinned() {
            say(&format!("{}: got {got}, written for {}; it is tried", pinned.tool, pinned.version));
        }
        for (version, why) in tools.doubtful() {
            say(&format!("{}: got {}: {why}; it is tried", version.tool, version.version));
        }
        let mut number = 0;
        let mut progress = |step: &Step| {
            if interrupt::is_asked() {
                return ControlFlow::Break(());
            }
            number += 1;
            say(&format!("{number}/4 {step}"));
            ControlFlow::Continue(())
        };
        // Ctrl-C ends the tool, too; what there is of a build goes away before this process does.
        interrupt::handle()?;
        match interrupt::finish(|| build.run(&tools, &mut progress)) {
            Ok(Outcome::Built) => {}
            Ok(Outcome::UpToDate) => say("up to date"),
            Err(BuildError::Interrupted) => return Ok(ExitCode::from(interrupt::INTERRUPTED)),
            // What a tool said has several lines.
            Err(error @ BuildError::Tool { .. }) => {
                say(&error.to_string());
                return Ok(ExitCode::FAILURE);
            }
            Err(error) => return Err(error.into()),
        }
        for suffix in ["xclbin", "insts.bin", "json"] {
            writeln!(out, "{}", build.product(suffix).display())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

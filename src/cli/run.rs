use std::{
    error::Error,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Instant,
};

use attn::{
    npz::{Output, OutputValues},
    problem::OutScale,
};
use attn_cpu::start_threads;
use clap::Args;

use super::{
    input::{self, BackendArgument, MaskArguments, of_file},
    interrupt, printable,
    progress::Bar,
};

/// Compute attention of a numpy archive: softmax(q·kᵀ / √d) · v as int8.
///
/// Float tensors are quantised first, each head with its largest magnitude / 127. Says on stderr which backend computed.
///
/// Exit status: 0 if the output was written, 2 for a usage or input error; the output file is then as it was before. After
/// Ctrl-C, or another signal that asks to end, (130) it is as before, or whole.
#[derive(Args)]
#[command(after_help = format!("\
Examples:
  attn run --input qkv.npz --output out.npz
  attn run --input qkv.npz --output out.npz --out-scale v --causal --valid-keys 1236

In numpy:
  numpy.savez(\"qkv.npz\", q=q, k=k, v=v)
  data = numpy.load(\"out.npz\")
  floats = data[\"out\"] * data[\"out_scale\"].reshape(q.shape[:-2] + (1, 1))

{}

Output, an .npz archive:
  out       int8, of q's shape
  out_scale float32, [heads]: value = integer * scale", input::FORMAT))]
pub(super) struct Run {
    /// The tensors.
    #[arg(long, value_name = "IN.npz")]
    input: PathBuf,
    /// Where the output goes; a file that is there is replaced.
    #[arg(long, value_name = "OUT.npz")]
    output: PathBuf,
    #[command(flatten)]
    backend: BackendArgument,
    /// What one step of the output is worth: `calibrated` makes the largest magnitude of each head 127, by float64 attention
    /// on the same int8 tensors; `v` is the scale of the values, with which nothing saturates; or a number.
    #[arg(long, value_name = "calibrated|v|NUMBER", default_value = "calibrated", allow_negative_numbers = true)]
    out_scale: OutScale,
    #[command(flatten)]
    masks: MaskArguments,
}

impl Run {
    pub(super) fn run(self) -> Result<ExitCode, Box<dyn Error>> {
        interrupt::handle()?;
        self.backend.check_other(&self.output, Some(&self.input))?;
        let mut backend = self.backend.open()?;
        let (problem, shape) = self.masks.read(&self.input, &*backend)?;
        start_threads()?;
        input::check_writable(&self.output)?;
        let queries = problem.heads * problem.queries;
        let scales = {
            let bar = Bar::new("calibrating in float64", queries);
            problem.out_scales(self.out_scale, &|queries| bar.add(queries)).map_err(of_file(&self.input))?
        };
        let parameters = problem.parameters(&scales).map_err(of_file(&self.input))?;
        let start = Instant::now();
        let values = {
            let bar = Bar::new(backend.name(), queries);
            problem.attend(&mut *backend, &parameters, &|queries| bar.add(queries))?
        };
        let seconds = start.elapsed().as_secs_f64();
        let output = Output { shape, values: OutputValues::Int8 { values, scales } };
        interrupt::finish(|| output.write(&self.output))?;
        // The output is there; whoever closed stderr did not want to know.
        let _ = writeln!(
            io::stderr(),
            "backend {}: {} heads x {} queries x {} keys x {} in {seconds:.3} s, written to {}",
            backend.name(),
            problem.heads,
            problem.queries,
            problem.keys,
            problem.dim,
            printable(&self.output.display().to_string()),
        );
        if let Some(times) = backend.times() {
            let _ = writeln!(io::stderr(), "{times}");
        }
        Ok(ExitCode::SUCCESS)
    }
}

//! What several commands take: the backend, the masks, and the form of their input.

use std::{
    error::Error,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use attn::{
    backend::{Backend, BackendError, BackendKind, Options},
    file, npz,
    problem::Problem,
};
use attn_npu::runtime::Artefacts;
use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};

use super::interrupt;

/// How an input file looks, for `--help`.
pub(super) const FORMAT: &str = "\
Input, an .npz archive (numpy.savez):
  q         [.., queries, d]: float16, float32 or float64, quantised per head; or int8. Leading dimensions are heads
  k, v      [.., keys, d], of q's heads or fewer: each of theirs serves an equal group of q's
  q_scale, k_scale, v_scale
            beside int8: value = integer * scale; a number, or one per head
  mask      optional, bool, true where a query sees a key: broadcasts to [.., queries, keys]";

#[derive(Args)]
pub(super) struct BackendArgument {
    /// What computes the integers. `kernel` and `aie2-model` are the NPU's kernels, run on this CPU: to check them, not for
    /// speed; `npu` is an NPU, which needs --xclbin. These three take no boolean masks, and `npu` no more keys and dimensions than the
    /// xclbin was built for.
    #[arg(long, value_name = "NAME", default_value = "scalar", value_parser = backends())]
    backend: BackendKind,
    #[command(flatten)]
    npu: NpuArguments,
}

#[derive(Args)]
pub(super) struct NpuArguments {
    /// What the NPU is to run, as `attn npu build` made it; its instructions and manifest are beside it.
    #[arg(long, value_name = "FILE.xclbin")]
    pub(super) xclbin: Option<PathBuf>,
    /// How long a dispatch of the NPU may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

impl BackendArgument {
    pub(super) fn open(&self) -> Result<Box<dyn Backend>, BackendError> {
        self.backend.open(&self.npu.options())
    }

    /// Checks that an output takes the place of nothing that is read: the input, and what the NPU is to run.
    pub(super) fn check_other(&self, output: &Path, input: Option<&Path>) -> Result<(), String> {
        let of_npu = self.npu.xclbin.iter().flat_map(|xclbin| Artefacts::files(xclbin));
        file::check_other(output, input.map(Path::to_owned).into_iter().chain(of_npu)).map_err(of_file(output))
    }
}

impl NpuArguments {
    pub(super) fn options(&self) -> Options {
        Options { xclbin: self.xclbin.clone(), timeout: Some(Duration::from_secs(self.timeout)) }
    }
}

/// Accepts the names of the backends there are.
pub(super) fn backends() -> impl TypedValueParser<Value = BackendKind> {
    PossibleValuesParser::new(BackendKind::ALL.iter().map(|kind| kind.name()))
        .try_map(|name| name.parse::<BackendKind>())
}

#[derive(Args)]
pub(super) struct MaskArguments {
    /// Query i sees the keys j <= i + OFFSET only; OFFSET is the number of keys before the first query.
    #[arg(long, value_name = "OFFSET", num_args = 0..=1, require_equals = true, default_missing_value = "0", requires = "input")]
    causal: Option<usize>,
    /// Only the first N keys are visible: the others are padding.
    #[arg(long, value_name = "N", requires = "input")]
    valid_keys: Option<usize>,
}

impl MaskArguments {
    /// The problem that a file holds, seen through these masks and its own, with the shape of its query: the backend takes it.
    pub(super) fn read(&self, path: &Path, backend: &dyn Backend) -> Result<(Problem, Vec<usize>), Box<dyn Error>> {
        let inputs = npz::read(path)?;
        let shape = inputs.query_shape.clone();
        let problem = Problem::from_file(inputs).and_then(|mut problem| {
            problem.masks.causal = self.causal;
            problem.masks.valid_keys = self.valid_keys;
            // Before anything is printed or computed.
            problem.check()?;
            problem.check_limits(backend)?;
            Ok(problem)
        });
        Ok((problem.map_err(of_file(path))?, shape))
    }
}

/// Says of an error which file it is about.
pub(super) fn of_file<E: fmt::Display>(path: &Path) -> impl Fn(E) -> String {
    move |error| format!("{}: {error}", path.display())
}

/// Checks that a file can be written to `path`, before the work whose result it is to hold.
pub(super) fn check_writable(path: &Path) -> Result<(), String> {
    interrupt::finish(|| file::check_writable(path)).map_err(of_file(path))
}

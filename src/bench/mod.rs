//! Speed and accuracy of every backend beside libtorch's and beside the CPU's peak: what `attn bench` and the benches of
//! `benches/attention.rs` measure.
//!
//! [`workloads`] lists what is measured, [`Workload::data`] makes the numbers, [`contestants`] who computes on them, and
//! [`measure()`] compares them in interleaved rounds: in every round each one computes once, so that a clock that changes
//! or a neighbour on the machine meets all of them. Inputs and outputs are prepared before; libtorch allocates its output
//! in every call, as it does for its users.

mod contestant;
mod measure;
mod report;
#[cfg(feature = "torch")]
mod torch;
mod workload;

pub use contestant::{Contestant, Prepared, REFERENCE, available, contestants, open};
pub use measure::{Options, Peak, measure, peaks};
pub use report::{Environment, Report, Row, Rows};
pub use workload::{Data, Io, Shape, ShapeError, Workload, of_shape, workloads};

use std::{error::Error, fmt};

use attn_ref::MetricsError;
use rayon::{ThreadPoolBuildError, ThreadPoolBuilder};

use crate::{backend::BackendError, problem::ProblemError, suite::CaseError};

/// No libtorch.
#[cfg(not(feature = "torch"))]
#[expect(clippy::unnecessary_wraps, reason = "what the module of feature `torch` has")]
mod torch {
    use super::{BenchError, Contestant, Data};

    pub(super) const VERSION: Option<&str> = None;

    pub(super) fn set_threads(_: u16) {}

    pub(super) fn contestants(_: &Data) -> Result<[Contestant<'_>; 0], BenchError> {
        Ok([])
    }
}

/// From now on everybody computes on so many threads, of which the calling one is the first. Once in a process.
///
/// # Errors
/// [`BenchError::Threads`]: threads that cannot be started, or that were already.
pub fn set_threads(threads: u16) -> Result<(), BenchError> {
    torch::set_threads(threads);
    let pool = ThreadPoolBuilder::new().num_threads(threads.into()).use_current_thread();
    pool.build_global().map_err(|error: ThreadPoolBuildError| BenchError::Threads(error.to_string()))
}

/// Why nothing was measured.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum BenchError {
    /// The threads could not be started.
    Threads(String),
    /// The numbers could not be made.
    Case(CaseError),
    /// A backend is not there or refused.
    Backend(BackendError),
    /// What libtorch said.
    Libtorch(String),
    /// A device without times.
    Emulated(String),
    /// Outputs that cannot be compared.
    Metrics(MetricsError),
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Threads(error) => write!(f, "threads: {error}"),
            Self::Case(error) => error.fmt(f),
            Self::Backend(error) => error.fmt(f),
            Self::Libtorch(error) => f.write_str(error),
            Self::Emulated(backend) => write!(f, "backend {backend}: an emulated device has no times"),
            Self::Metrics(error) => error.fmt(f),
        }
    }
}

impl Error for BenchError {}

impl From<CaseError> for BenchError {
    fn from(error: CaseError) -> Self {
        Self::Case(error)
    }
}

impl From<ProblemError> for BenchError {
    fn from(error: ProblemError) -> Self {
        Self::Case(error.into())
    }
}

impl From<BackendError> for BenchError {
    fn from(error: BackendError) -> Self {
        Self::Backend(error)
    }
}

impl From<MetricsError> for BenchError {
    fn from(error: MetricsError) -> Self {
        Self::Metrics(error)
    }
}

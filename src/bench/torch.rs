//! libtorch as a peer.

use std::hint::black_box;

use attn_fixed::Mask;
use attn_ref::torch::{Method, Precision, TorchAttention, TorchError, TorchOutput};

use super::{
    BenchError,
    contestant::{Contestant, Prepared, REFERENCE},
    workload::Data,
};

pub(super) use attn_ref::torch::set_threads;

/// The version of libtorch, if it is built in.
pub(super) const VERSION: Option<&str> = Some(attn_ref::torch::VERSION);

/// Plain attention holds its scores, several times over: it is left out above 1 GiB of them in float32.
const MAX_SCORES: u64 = 1 << 28;

/// What users of libtorch call, and the definition; in both precisions.
pub(super) fn contestants(data: &Data) -> Result<Vec<Contestant<'_>>, BenchError> {
    let all = [
        (REFERENCE, Method::Fused, Precision::F32),
        ("torch-sdpa-bf16", Method::Fused, Precision::Bf16),
        ("torch-plain-f32", Method::Plain, Precision::F32),
        ("torch-plain-bf16", Method::Plain, Precision::Bf16),
    ];
    let scores = data.shape.macs() / (2 * data.shape.dim as u64);
    let fits = |method| method == Method::Fused || scores <= MAX_SCORES;
    let [query, key, value] = data.float64();
    let scale = 1.0 / (data.shape.dim as f64).sqrt();
    all.into_iter()
        .filter(|(_, method, _)| fits(*method))
        .map(|(name, method, precision)| {
            let attention =
                TorchAttention::new(query.view(), key.view(), value.view(), scale, &[Mask::new()], precision)?;
            let attention = Box::new(Torch { attention, method, out: None });
            Ok(Contestant { name: name.to_owned(), isa: None, threaded: true, attention })
        })
        .collect()
}

struct Torch {
    attention: TorchAttention,
    method: Method,
    /// libtorch makes a new output in every call, and so for every user; the last one is kept until the next.
    out: Option<TorchOutput>,
}

impl Prepared for Torch {
    fn compute(&mut self) -> Result<(), BenchError> {
        self.out = Some(black_box(self.attention.compute(self.method)?));
        Ok(())
    }

    fn output(&self) -> Result<Vec<f64>, BenchError> {
        let Some(out) = &self.out else { return Ok(Vec::new()) };
        Ok(out.to_array()?.into_iter().collect())
    }
}

impl From<TorchError> for BenchError {
    fn from(error: TorchError) -> Self {
        Self::Libtorch(error.to_string())
    }
}

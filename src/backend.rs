//! Where attention is computed. Every backend gives the bits of [`attn_fixed`].

use std::{error::Error, fmt, str::FromStr};

use attn_cpu::{Attention, Unavailable};
use attn_fixed::{
    AttentionError, FloatError, FloatHeads, Head, Heads, Inputs, Output, Parameters, Scales, attend, quantise_heads,
    scratch_len,
};

pub use attn_cpu::Isa;

/// Something that computes attention.
pub trait Backend {
    /// The name that chooses it and that results are labelled with.
    fn name(&self) -> &'static str;

    /// Writes `out`, `[heads, queries, dim]`.
    ///
    /// # Errors
    /// As [`Heads::split`]; `out` is then untouched.
    fn attend(&mut self, heads: Heads<'_>, out: &mut [i8], progress: Progress<'_>) -> Result<(), BackendError>;

    /// The same for floats: quantises, attends in integers, and writes `out`, `[heads, queries, dim]`, in floats, which are not
    /// rounded to 8 bits and need no output scale.
    ///
    /// # Errors
    /// As [`FloatHeads::check`]; floats that are not finite; scales that [`Parameters::new`] refuses. `out` is then untouched.
    fn attend_f32(
        &mut self,
        heads: FloatHeads<'_>,
        out: &mut [f32],
        progress: Progress<'_>,
    ) -> Result<(), BackendError>;
}

/// What long work calls, from any thread, with the number of queries that it did since the last call.
pub type Progress<'a> = &'a (dyn Fn(usize) + Sync);

/// The backends there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackendKind {
    /// The specification itself, one thread.
    Scalar,
    /// The CPU's vector instructions, all threads of the rayon pool.
    Cpu(Isa),
    /// The fastest one that this machine has.
    Auto,
}

impl BackendKind {
    /// Every backend.
    pub const ALL: [Self; 6] = [
        Self::Scalar,
        Self::Cpu(Isa::Avx512Vnni),
        Self::Cpu(Isa::Avx512Bw),
        Self::Cpu(Isa::AvxVnni),
        Self::Cpu(Isa::Avx2),
        Self::Auto,
    ];

    /// The name that [`FromStr`] understands.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Cpu(isa) => isa.name(),
            Self::Auto => "auto",
        }
    }

    /// Makes the backend ready to compute. There is no fallback to another one; the name of what is opened for
    /// [`Auto`](Self::Auto), the specification at worst, is that of what computes.
    ///
    /// # Errors
    /// [`BackendError::Unavailable`] on a machine that does not have it.
    pub fn open(self) -> Result<Box<dyn Backend>, BackendError> {
        match self {
            Self::Scalar => Ok(Box::new(Scalar)),
            Self::Cpu(isa) => Ok(Box::new(Attention::new(isa).map_err(BackendError::Unavailable)?)),
            Self::Auto => Isa::best().map_or(Self::Scalar, Self::Cpu).open(),
        }
    }
}

impl FromStr for BackendKind {
    type Err = BackendError;

    fn from_str(name: &str) -> Result<Self, BackendError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| BackendError::Unknown { got: name.to_owned() })
    }
}

impl Backend for Attention {
    fn name(&self) -> &'static str {
        self.isa().name()
    }

    fn attend(&mut self, heads: Heads<'_>, out: &mut [i8], progress: Progress<'_>) -> Result<(), BackendError> {
        Ok(Self::attend(self, heads, out, progress)?)
    }

    fn attend_f32(
        &mut self,
        heads: FloatHeads<'_>,
        out: &mut [f32],
        progress: Progress<'_>,
    ) -> Result<(), BackendError> {
        Ok(Self::attend_f32(self, heads, out, progress)?)
    }
}

/// [`attn_fixed::attend`], head by head.
struct Scalar;

/// So many queries are attended between two signs of progress.
const QUERIES: usize = 64;

impl Backend for Scalar {
    fn name(&self) -> &'static str {
        BackendKind::Scalar.name()
    }

    fn attend(&mut self, heads: Heads<'_>, out: &mut [i8], progress: Progress<'_>) -> Result<(), BackendError> {
        Ok(scalar(heads, out, progress)?)
    }

    fn attend_f32(
        &mut self,
        heads: FloatHeads<'_>,
        out: &mut [f32],
        progress: Progress<'_>,
    ) -> Result<(), BackendError> {
        heads.check(out.len())?;
        let mut quantised = heads.tensors().map(|(_, values, _)| vec![0; values.len()]);
        let mut scales = heads.tensors().map(|(_, _, count)| vec![0.0; count]);
        for ((tensor, values, _), (quantised, scales)) in
            heads.tensors().into_iter().zip(quantised.iter_mut().zip(&mut scales))
        {
            quantise_heads(values, quantised, scales).map_err(|error| FloatError::Quantise { tensor, error })?;
        }
        let [query, key, value] = &scales;
        let group = query.len() / heads.kv_heads;
        let parameters = query.iter().enumerate().map(|(h, &query)| {
            let (key, value) = (key[h / group], value[h / group]);
            // An output in floats has no scale: any will do.
            Parameters::new(heads.dim, Scales { query, key, value, out: value })
        });
        let parameters = parameters.collect::<Result<Vec<_>, _>>().map_err(FloatError::Parameters)?;
        let [query, key, value] = &quantised;
        let inputs = Inputs { query, key, value };
        let heads = Heads { parameters: &parameters, masks: heads.masks, kv_heads: heads.kv_heads, inputs };
        Ok(scalar(heads, out, progress)?)
    }
}

/// The specification, head by head.
fn scalar<O: Output>(heads: Heads<'_>, out: &mut [O], progress: Progress<'_>) -> Result<(), AttentionError> {
    let mut scratch = Vec::new();
    for (Head { parameters, mask, inputs }, out) in heads.split(out)? {
        scratch.resize(scratch_len(parameters.dim()), 0);
        let len = QUERIES * parameters.dim();
        for (block, (query, out)) in inputs.query.chunks(len).zip(out.chunks_mut(len)).enumerate() {
            let (first, queries) = (block * QUERIES, out.len() / parameters.dim());
            let mask = mask.rows(first..first + queries);
            attend(parameters, Inputs { query, ..inputs }, &mask, &mut scratch, out)?;
            progress(queries);
        }
    }
    Ok(())
}

/// Why a backend did not compute.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum BackendError {
    /// No backend has this name.
    Unknown {
        /// The name given.
        got: String,
    },
    /// This machine does not have it.
    Unavailable(Unavailable),
    /// What is wrong with the tensors.
    Attention(AttentionError),
    /// What is wrong with tensors of floats.
    Float(FloatError),
}

impl From<FloatError> for BackendError {
    fn from(error: FloatError) -> Self {
        Self::Float(error)
    }
}

impl From<AttentionError> for BackendError {
    fn from(error: AttentionError) -> Self {
        Self::Attention(error)
    }
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { got } => {
                write!(f, "backend: got `{got}`, expected {}", BackendKind::ALL.map(BackendKind::name).join(", "))
            }
            Self::Unavailable(error) => write!(f, "backend {error}; `auto` takes the fastest one"),
            Self::Attention(error) => error.fmt(f),
            Self::Float(error) => error.fmt(f),
        }
    }
}

impl Error for BackendError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            // It is printed itself.
            Self::Attention(error) => error.source(),
            Self::Float(error) => error.source(),
            Self::Unknown { .. } | Self::Unavailable(_) => None,
        }
    }
}

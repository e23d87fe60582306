//! Where attention is computed. Every backend gives the bits of [`attn_fixed`].

use std::{error::Error, fmt, str::FromStr};

use attn_cpu::Attention;
use attn_fixed::{
    AttentionError, FloatError, FloatHeads, Head, Heads, Inputs, Mask, Output, Parameters, Scales, attend,
    quantise_heads, scratch_len,
};
use attn_npu::{Kernel, NpuError};

pub use attn_cpu::Isa;
pub use attn_npu::UnsupportedMask;

/// Something that computes attention.
pub trait Backend {
    /// What results are labelled with: the name that chooses it; of a kernel of the NPU also that it ran on this CPU.
    fn name(&self) -> &'static str;

    /// Whether it takes these masks: what [`attend`](Self::attend) would say of them, before there is anything to compute.
    ///
    /// # Errors
    /// [`BackendError::Mask`], of a backend that takes no boolean masks.
    fn check_masks(&self, _masks: &[Mask<'_>]) -> Result<(), BackendError> {
        Ok(())
    }

    /// Writes `out`, `[heads, queries, dim]`.
    ///
    /// # Errors
    /// As [`Heads::split`], and as [`check_masks`](Self::check_masks); `out` is then untouched.
    fn attend(&mut self, heads: Heads<'_>, out: &mut [i8], progress: Progress<'_>) -> Result<(), BackendError>;

    /// The same for floats: quantises, attends in integers, and writes `out`, `[heads, queries, dim]`, in floats, which are not
    /// rounded to 8 bits and need no output scale.
    ///
    /// # Errors
    /// As [`FloatHeads::check`] and [`check_masks`](Self::check_masks); floats that are not finite; scales that
    /// [`Parameters::new`] refuses. `out` is then untouched.
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
    /// The NPU's kernel in portable C, run on this CPU, one thread. No boolean masks.
    Kernel,
    /// The NPU's vector kernel, run on this CPU on a model of the NPU's instructions, one thread. No boolean masks.
    Aie2Model,
    /// The fastest one that this machine has.
    Auto,
}

impl BackendKind {
    /// Every backend.
    pub const ALL: [Self; 8] = [
        Self::Scalar,
        Self::Cpu(Isa::Avx512Vnni),
        Self::Cpu(Isa::Avx512Bw),
        Self::Cpu(Isa::AvxVnni),
        Self::Cpu(Isa::Avx2),
        Self::Kernel,
        Self::Aie2Model,
        Self::Auto,
    ];

    /// The name that [`FromStr`] understands.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Cpu(isa) => isa.name(),
            Self::Kernel => Kernel::Portable.name(),
            Self::Aie2Model => Kernel::Aie2Model.name(),
            Self::Auto => "auto",
        }
    }

    /// Makes the backend ready to compute. There is no fallback to another one; the name of what is opened for
    /// [`Auto`](Self::Auto), the specification at worst, is that of what computes.
    ///
    /// # Errors
    /// [`BackendError::Unavailable`] on a machine, or of a build, that does not have it.
    pub fn open(self) -> Result<Box<dyn Backend>, BackendError> {
        match self {
            Self::Scalar => Ok(Box::new(Scalar)),
            Self::Cpu(isa) => Ok(Box::new(Attention::new(isa).map_err(Unavailable::Cpu)?)),
            Self::Kernel => Ok(Box::new(attn_npu::Attention::new(Kernel::Portable).map_err(Unavailable::Kernel)?)),
            Self::Aie2Model => Ok(Box::new(attn_npu::Attention::new(Kernel::Aie2Model).map_err(Unavailable::Kernel)?)),
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

impl Backend for attn_npu::Attention {
    fn name(&self) -> &'static str {
        self.kernel().label()
    }

    fn check_masks(&self, masks: &[Mask<'_>]) -> Result<(), BackendError> {
        Ok(attn_npu::check_masks(masks).map_err(NpuError::Mask)?)
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
        heads.check(out.len())?;
        self.check_masks(heads.masks)?;
        Ok(Self::attend_f32(self, Quantised::new(heads)?.heads(heads), out, progress)?)
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
        Ok(scalar(Quantised::new(heads)?.heads(heads), out, progress)?)
    }
}

/// Floats as integers, quantised as specified: query, key and value.
struct Quantised {
    tensors: [Vec<i8>; 3],
    parameters: Vec<Parameters>,
}

impl Quantised {
    /// Of heads whose shapes are checked.
    fn new(heads: FloatHeads<'_>) -> Result<Self, FloatError> {
        let mut tensors = heads.tensors().map(|(_, values, _)| vec![0; values.len()]);
        let mut scales = heads.tensors().map(|(_, _, count)| vec![0.0; count]);
        for ((tensor, values, _), (quantised, scales)) in
            heads.tensors().into_iter().zip(tensors.iter_mut().zip(&mut scales))
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
        Ok(Self { tensors, parameters: parameters.collect::<Result<_, _>>()? })
    }

    /// The integers of the same heads.
    fn heads<'a>(&'a self, FloatHeads { masks, kv_heads, .. }: FloatHeads<'a>) -> Heads<'a> {
        let [query, key, value] = &self.tensors;
        Heads { parameters: &self.parameters, masks, kv_heads, inputs: Inputs { query, key, value } }
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
    /// This machine or this build does not have it.
    Unavailable(Unavailable),
    /// What is wrong with the tensors.
    Attention(AttentionError),
    /// A mask that other backends take.
    Mask(UnsupportedMask),
    /// What is wrong with tensors of floats.
    Float(FloatError),
}

/// What a backend lacks here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unavailable {
    /// The CPU's instructions.
    Cpu(attn_cpu::Unavailable),
    /// A compiler, when this was built.
    Kernel(attn_npu::Unavailable),
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu(error) => write!(f, "backend {error}; `auto` takes the fastest one"),
            Self::Kernel(error) => write!(f, "backend {error}"),
        }
    }
}

impl Error for Unavailable {}

impl From<Unavailable> for BackendError {
    fn from(error: Unavailable) -> Self {
        Self::Unavailable(error)
    }
}

impl From<NpuError> for BackendError {
    fn from(error: NpuError) -> Self {
        match error {
            NpuError::Attention(error) => Self::Attention(error),
            NpuError::Mask(error) => Self::Mask(error),
        }
    }
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
            Self::Unavailable(error) => error.fmt(f),
            Self::Attention(error) => error.fmt(f),
            Self::Mask(error) => error.fmt(f),
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
            Self::Unknown { .. } | Self::Unavailable(_) | Self::Mask(_) => None,
        }
    }
}

//! Where attention is computed. Every backend gives the bits of [`attn_fixed`].

use std::{error::Error, fmt, path::PathBuf, str::FromStr, time::Duration};

use attn_cpu::Attention;
use attn_fixed::{
    AttentionError, FloatError, FloatHeads, Head, Heads, Inputs, MAX_DIM, MAX_KEYS, Mask, Output, Parameters, Scales,
    attend, quantise_heads, scratch_len,
};
#[cfg(feature = "npu")]
use attn_npu::runtime::{self, Session, SessionError};
use attn_npu::{Kernel, NpuError, check_masks};

pub use attn_cpu::Isa;
pub use attn_npu::UnsupportedMask;

/// Something that computes attention. It may move to another thread, and serves one at a time.
pub trait Backend: Send {
    /// What results are labelled with: the name that chooses it; of a kernel of the NPU also that it ran on this CPU; of an NPU also
    /// its device, driver, firmware and xclbin.
    fn name(&self) -> &str;

    /// What it is, in a line: what computes, and where.
    fn description(&self) -> &'static str;

    /// Where the time of what it computed since this was last called went, if there is more to say than how long it took.
    fn times(&mut self) -> Option<String> {
        None
    }

    /// Whether it stands in for a device that is not there: its times say nothing.
    fn is_emulated(&self) -> bool {
        false
    }

    /// What it takes of that which the specification takes: everything, if it does not say otherwise.
    fn limits(&self) -> Limits {
        Limits::NONE
    }

    /// Writes `out`, `[heads, queries, dim]`.
    ///
    /// # Errors
    /// As [`Heads::split`] and [`Limits::check`]; `out` is then untouched. What happens to an NPU while it computes; `out` is then of
    /// no use.
    fn attend(&mut self, heads: Heads<'_>, out: &mut [i8], progress: Progress<'_>) -> Result<(), BackendError>;

    /// The same for floats: quantises, attends in integers, and writes `out`, `[heads, queries, dim]`, in floats, which are not
    /// rounded to 8 bits and need no output scale.
    ///
    /// # Errors
    /// As [`FloatHeads::check`] and [`Limits::check`]; a backend without floats; floats that are not finite; scales that
    /// [`Parameters::new`] refuses. `out` is then untouched.
    fn attend_f32(
        &mut self,
        heads: FloatHeads<'_>,
        out: &mut [f32],
        progress: Progress<'_>,
    ) -> Result<(), BackendError>;
}

/// What a backend takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest head dimension.
    pub dim: usize,
    /// Most keys.
    pub keys: usize,
    /// Whether masks may have a boolean part.
    pub boolean_masks: bool,
    /// Whether it has [`Backend::attend_f32`].
    pub floats: bool,
}

impl Limits {
    /// Those of the specification.
    pub const NONE: Self = Self { dim: MAX_DIM, keys: MAX_KEYS, boolean_masks: true, floats: true };

    /// Whether heads are within them: what [`Backend::attend`] would say, before there is anything to compute.
    ///
    /// # Errors
    /// [`BackendError::Room`] or [`BackendError::Mask`], in the order of the fields.
    pub fn check(&self, dim: usize, keys: usize, masks: &[Mask<'_>]) -> Result<(), BackendError> {
        for (what, got, most) in [("dimension", dim, self.dim), ("keys", keys, self.keys)] {
            if got > most {
                return Err(BackendError::Room { what, got, most });
            }
        }
        if !self.boolean_masks {
            check_masks(masks).map_err(NpuError::Mask)?;
        }
        Ok(())
    }
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
    /// An NPU, through XRT, with what [`Options`] say. No boolean masks, no floats, no more keys and dimensions than the xclbin was built
    /// for.
    #[cfg(feature = "npu")]
    Npu,
    /// The fastest one that this CPU has.
    Auto,
}

/// What some backends need to be opened.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What an NPU is to run; instructions and manifest are beside it.
    pub xclbin: Option<PathBuf>,
    /// How long a dispatch of an NPU may take, if not as long as it does by default.
    pub timeout: Option<Duration>,
}

impl BackendKind {
    /// Every backend.
    pub const ALL: &[Self] = &[
        Self::Scalar,
        Self::Cpu(Isa::Avx512Vnni),
        Self::Cpu(Isa::Avx512Bw),
        Self::Cpu(Isa::AvxVnni),
        Self::Cpu(Isa::Avx2),
        Self::Kernel,
        Self::Aie2Model,
        #[cfg(feature = "npu")]
        Self::Npu,
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
            #[cfg(feature = "npu")]
            Self::Npu => "npu",
            Self::Auto => "auto",
        }
    }

    /// Makes the backend ready to compute. There is no fallback to another one; the name of what is opened for
    /// [`Auto`](Self::Auto), the specification at worst, is that of what computes.
    ///
    /// # Errors
    /// [`BackendError::Unavailable`] on a machine, or of a build, that does not have it; [`BackendError::Npu`];
    /// [`BackendError::Xclbin`] where there is an xclbin and no NPU to run it.
    pub fn open(self, options: &Options) -> Result<Box<dyn Backend>, BackendError> {
        self.check(options)?;
        match self {
            Self::Scalar => Ok(Box::new(Scalar)),
            Self::Cpu(isa) => Ok(Box::new(Attention::new(isa).map_err(Unavailable::Cpu)?)),
            Self::Kernel => Ok(Box::new(attn_npu::Attention::new(Kernel::Portable).map_err(Unavailable::Kernel)?)),
            Self::Aie2Model => Ok(Box::new(attn_npu::Attention::new(Kernel::Aie2Model).map_err(Unavailable::Kernel)?)),
            #[cfg(feature = "npu")]
            Self::Npu => {
                let xclbin = options.xclbin.as_ref().ok_or(BackendError::NoXclbin)?;
                let defaults = runtime::Options::new(xclbin);
                let timeout = options.timeout.unwrap_or(defaults.timeout);
                let session = Session::open(&runtime::Options { timeout, ..defaults })?;
                Ok(Box::new(Npu { label: format!("npu ({})", session.identity()), session }))
            }
            Self::Auto => Isa::best().map_or(Self::Scalar, Self::Cpu).open(options),
        }
    }

    /// Whether these options are for it: what [`open`](Self::open) would say, before anything is opened.
    ///
    /// # Errors
    /// [`BackendError::Xclbin`].
    pub fn check(self, options: &Options) -> Result<(), BackendError> {
        match &options.xclbin {
            Some(got) if self.name() != "npu" => Err(BackendError::Xclbin { backend: self.name(), got: got.clone() }),
            _ => Ok(()),
        }
    }
}

impl FromStr for BackendKind {
    type Err = BackendError;

    fn from_str(name: &str) -> Result<Self, BackendError> {
        Self::ALL
            .iter()
            .copied()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| BackendError::Unknown { got: name.to_owned() })
    }
}

impl Backend for Attention {
    fn name(&self) -> &str {
        self.isa().name()
    }

    fn description(&self) -> &'static str {
        "x86-64 vector instructions of this CPU"
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
    fn name(&self) -> &str {
        self.kernel().label()
    }

    fn description(&self) -> &'static str {
        self.kernel().description()
    }

    fn limits(&self) -> Limits {
        Limits { boolean_masks: false, ..Limits::NONE }
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
        check_masks(heads.masks).map_err(NpuError::Mask)?;
        Ok(Self::attend_f32(self, Quantised::new(heads)?.heads(heads), out, progress)?)
    }
}

/// An NPU.
#[cfg(feature = "npu")]
struct Npu {
    session: Session,
    label: String,
}

#[cfg(feature = "npu")]
impl Backend for Npu {
    fn name(&self) -> &str {
        &self.label
    }

    fn description(&self) -> &'static str {
        if self.is_emulated() {
            "the design of an NPU on an emulated device through XRT: no NPU computed this"
        } else {
            "an AMD Ryzen AI NPU through XRT"
        }
    }

    fn is_emulated(&self) -> bool {
        self.session.identity().is_emulated()
    }

    /// None of an emulated device, whose times say nothing.
    fn times(&mut self) -> Option<String> {
        let times = self.session.take_times();
        (!self.session.identity().is_emulated()).then(|| times.to_string())
    }

    fn limits(&self) -> Limits {
        Limits { dim: self.session.design().dim, keys: self.session.max_keys(), boolean_masks: false, floats: false }
    }

    fn attend(&mut self, heads: Heads<'_>, out: &mut [i8], progress: Progress<'_>) -> Result<(), BackendError> {
        Ok(self.session.attend(heads, out, progress)?)
    }

    /// A device hands out 8 bits, and what it divided is gone.
    fn attend_f32(&mut self, heads: FloatHeads<'_>, out: &mut [f32], _: Progress<'_>) -> Result<(), BackendError> {
        heads.check(out.len())?;
        Err(BackendError::NoFloats)
    }
}

/// [`attn_fixed::attend`], head by head.
struct Scalar;

/// So many queries are attended between two signs of progress.
const QUERIES: usize = 64;

impl Backend for Scalar {
    fn name(&self) -> &str {
        BackendKind::Scalar.name()
    }

    fn description(&self) -> &'static str {
        "the specification itself, portable, one thread of this CPU"
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
    /// More than an NPU's xclbin was built for.
    Room {
        /// Of what.
        what: &'static str,
        /// What there is.
        got: usize,
        /// The most that there can be.
        most: usize,
    },
    /// Outputs in floats, which other backends have.
    NoFloats,
    /// An NPU without something to run.
    NoXclbin,
    /// Something to run, of a backend that is no NPU.
    Xclbin {
        /// The backend.
        backend: &'static str,
        /// The file.
        got: PathBuf,
    },
    /// What is missing for an NPU, or happened to it.
    #[cfg(feature = "npu")]
    Npu(Box<SessionError>),
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

#[cfg(feature = "npu")]
impl From<SessionError> for BackendError {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Attention(error) => Self::Attention(error),
            SessionError::Mask(error) => Self::Mask(error),
            SessionError::Room { what, got, most } => Self::Room { what, got, most },
            other => Self::Npu(Box::new(other)),
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
                let names: Vec<_> = BackendKind::ALL.iter().map(|kind| kind.name()).collect();
                write!(f, "backend: got `{got}`, expected {}", names.join(", "))
            }
            Self::Unavailable(error) => error.fmt(f),
            Self::Attention(error) => error.fmt(f),
            Self::Mask(error) => error.fmt(f),
            Self::Room { what, got, most } => {
                write!(f, "{what}: got {got}, expected at most {most}, which is what the xclbin was built for")
            }
            Self::NoFloats => f.write_str("an NPU has outputs of 8 bits only: other backends have floats"),
            Self::NoXclbin => {
                f.write_str("backend npu: got no xclbin, expected --xclbin FILE (`attn npu build` makes one)")
            }
            Self::Xclbin { backend, got } => {
                write!(f, "backend {backend}: got xclbin {}, expected none, or backend npu", got.display())
            }
            #[cfg(feature = "npu")]
            Self::Npu(error) => write!(f, "backend npu: {error}"),
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
            _ => None,
        }
    }
}

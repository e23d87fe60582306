//! Who is measured: every backend, and libtorch where it is built in.

use attn_fixed::{FloatHeads, Mask};

use super::{
    BenchError, torch,
    workload::{Data, Io},
};
use crate::{
    backend::{Backend, BackendError, BackendKind, Isa, Options},
    npz::Qkv,
};

/// The one that all are compared with.
pub const REFERENCE: &str = "torch-sdpa-f32";

/// Attention with its inputs, prepared to be computed again and again.
pub trait Prepared {
    /// What is timed.
    ///
    /// # Errors
    /// What the backend or libtorch says.
    fn compute(&mut self) -> Result<(), BenchError>;

    /// What was last computed, `[heads, queries, dim]`; nothing if nothing was.
    ///
    /// # Errors
    /// What libtorch says.
    fn output(&self) -> Result<Vec<f64>, BenchError>;

    /// Where the time of all calls went, if there is more to say than how long each took.
    fn times(&mut self) -> Option<String> {
        None
    }
}

/// One row of the comparison.
pub struct Contestant<'a> {
    /// The backend's name, or that of the peer.
    pub name: String,
    /// The instruction set whose peak limits it; none for a peer, the specification, and an NPU's kernel.
    pub isa: Option<Isa>,
    /// Whether it uses the threads there are, or one.
    pub threaded: bool,
    /// The attention.
    pub attention: Box<dyn Prepared + 'a>,
}

/// The backends that this CPU has, the specification first. The NPU's kernels are measured only if they are asked for.
#[must_use]
pub fn available() -> Vec<BackendKind> {
    let isas = Isa::ALL.into_iter().filter(|isa| isa.is_available());
    [BackendKind::Scalar].into_iter().chain(isas.map(BackendKind::Cpu)).collect()
}

/// A backend whose times say something. The options are those of an NPU: other backends beside it are opened without.
///
/// # Errors
/// As [`BackendKind::open`]; an emulated device.
pub fn open(kind: BackendKind, options: &Options) -> Result<Box<dyn Backend>, BenchError> {
    let backend = if kind == BackendKind::Npu { kind.open(options)? } else { kind.open(&Options::default())? };
    if backend.is_emulated() {
        return Err(BenchError::Emulated(backend.name().to_owned()));
    }
    Ok(backend)
}

/// These backends, each of them once, and the peers that are built in.
///
/// A backend that does not take the shape, or floats, is left out: why is the second result.
///
/// # Errors
/// A backend that this machine does not have, or an emulated device; what libtorch says of the numbers.
pub fn contestants<'a>(
    data: &'a Data,
    backends: &[BackendKind],
    options: &Options,
) -> Result<(Vec<Contestant<'a>>, Vec<String>), BenchError> {
    let (mut all, mut left_out): (Vec<Contestant<'a>>, _) = (Vec::new(), Vec::new());
    for kind in backends {
        let backend = open(*kind, options)?;
        let name = backend.name().to_owned();
        // `auto` may be one that is there already.
        if all.iter().any(|other| other.name == name) {
            continue;
        }
        // An NPU has room for what its xclbin was built for, and no floats.
        let (limits, shape) = (backend.limits(), data.shape);
        let masks = data.masks();
        let refused = limits.check(shape.dim, shape.keys, &masks).err();
        let refused = refused.or_else(|| (data.io == Io::F32 && !limits.floats).then_some(BackendError::NoFloats));
        if let Some(error) = refused {
            left_out.push(format!("{name}: {error}"));
            continue;
        }
        let isa = Isa::ALL.into_iter().find(|isa| isa.name() == name);
        let elements = data.floats.tensors.query.len();
        let attention: Box<dyn Prepared> = match data.io {
            Io::Int8 => Box::new(Int8 { data, backend, masks, out: vec![0; elements] }),
            Io::F32 => Box::new(F32 { data, backend, masks, out: vec![0.0; elements] }),
        };
        all.push(Contestant { name, isa, threaded: isa.is_some(), attention });
    }
    all.extend(torch::contestants(data)?);
    Ok((all, left_out))
}

/// A backend on integers.
struct Int8<'a> {
    data: &'a Data,
    backend: Box<dyn Backend>,
    masks: Vec<Mask<'static>>,
    out: Vec<i8>,
}

impl Prepared for Int8<'_> {
    fn compute(&mut self) -> Result<(), BenchError> {
        Ok(self.backend.attend(self.data.heads(&self.masks), &mut self.out, &|_| ())?)
    }

    fn output(&self) -> Result<Vec<f64>, BenchError> {
        let heads = self.out.chunks_exact(self.out.len() / self.data.shape.heads).zip(&self.data.out_scales);
        Ok(heads.flat_map(|(head, &scale)| head.iter().map(move |&x| f64::from(x) * f64::from(scale))).collect())
    }

    fn times(&mut self) -> Option<String> {
        self.backend.times()
    }
}

/// A backend on floats.
struct F32<'a> {
    data: &'a Data,
    backend: Box<dyn Backend>,
    masks: Vec<Mask<'static>>,
    out: Vec<f32>,
}

impl Prepared for F32<'_> {
    fn compute(&mut self) -> Result<(), BenchError> {
        let Qkv { query, key, value } = &self.data.floats.tensors;
        let (dim, kv_heads) = (self.data.shape.dim, self.data.shape.heads);
        let heads = FloatHeads { dim, masks: &self.masks, kv_heads, query, key, value };
        Ok(self.backend.attend_f32(heads, &mut self.out, &|_| ())?)
    }

    fn output(&self) -> Result<Vec<f64>, BenchError> {
        Ok(self.out.iter().map(|&x| x.into()).collect())
    }
}

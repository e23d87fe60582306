//! The seam at which attention is swapped: query, key and value in, output out, once per layer.

use std::{
    fmt, mem,
    rc::Rc,
    str::FromStr,
    time::{Duration, Instant},
};

use attn::{
    FloatHeads, Heads, Inputs, Mask, Parameters, Scales, Tensor as Name,
    backend::{Backend, BackendError, BackendKind, Options},
};
use attn_fixed::quantise::{largest, quantise_with, scale_of};
use attn_ref::torch::Method;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::{
    calibration::{Calibration, Scales as HeadScales},
    error::Error,
};

/// Which part of the model an attention is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The encoder's self-attention: 1500 queries and keys.
    Encoder,
    /// The decoder's self-attention: one query, and the keys of it and the tokens before it.
    DecoderSelf,
    /// The decoder's attention to the encoder's output: one query, 1500 keys.
    DecoderCross,
}

impl Stage {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Encoder, Self::DecoderSelf, Self::DecoderCross];
}

/// One attention of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// The part of the model.
    pub stage: Stage,
    /// The layer, from 0.
    pub layer: usize,
}

/// Something that computes `softmax(Q·Kᵀ/√d)·V` for every head.
pub trait Attention {
    /// The output, `[heads, m, d]`, of `query`, `[heads, m, d]`, and `key` and `value`, `[heads, n, d]`; every query sees every
    /// key. Tensors are float32, of any strides, and not scaled.
    ///
    /// # Errors
    /// What libtorch or a backend says, for example of NaN.
    fn attend(&mut self, site: Site, query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Tensor, Error>;
}

/// What can be asked for by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// libtorch in float32.
    Torch(Method),
    /// Integers, on a backend of `attn`.
    Integer(BackendKind),
}

impl Choice {
    /// The names of all.
    #[must_use]
    pub fn names() -> Vec<&'static str> {
        let floats = [Self::Torch(Method::Plain), Self::Torch(Method::Fused)];
        floats.into_iter().chain(BackendKind::ALL.iter().copied().map(Self::Integer)).map(Self::name).collect()
    }

    /// The name that [`FromStr`] understands.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Torch(Method::Plain) => "float",
            Self::Torch(Method::Fused) => "sdpa",
            Self::Integer(kind) => kind.name(),
        }
    }
}

impl FromStr for Choice {
    type Err = BackendError;

    fn from_str(name: &str) -> Result<Self, BackendError> {
        match name {
            "float" => Ok(Self::Torch(Method::Plain)),
            "sdpa" => Ok(Self::Torch(Method::Fused)),
            name => name.parse().map(Self::Integer),
        }
    }
}

/// Attention in float32, in libtorch.
#[derive(Clone, Copy, Debug)]
pub struct Torch(pub Method);

impl Attention for Torch {
    fn attend(&mut self, _: Site, query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Tensor, Error> {
        Ok(match self.0 {
            Method::Plain => {
                let scale = 1.0 / (query.size()[2] as f64).sqrt();
                let scores = query.f_matmul(&key.f_transpose(1, 2)?)?.f_mul_scalar(scale)?;
                scores.f_softmax(-1, None)?.f_matmul(value)?
            }
            Method::Fused => {
                // The kernel that is fast on CPUs takes [batch, heads, rows, dim] only.
                let [query, key, value] = [query, key, value].map(|tensor| tensor.f_unsqueeze(0));
                let none = None::<&Tensor>;
                Tensor::f_scaled_dot_product_attention(&query?, &key?, &value?, none, 0.0, false, None, false)?
                    .f_squeeze_dim(0)?
            }
        })
    }
}

/// Where the scales of integers come from.
#[derive(Clone, Debug, PartialEq)]
pub enum ScaleRule {
    /// Of every call: a tensor's head becomes int8 by its own largest magnitude; the output is float32, not rounded to 8 bits.
    Dynamic,
    /// The same with an output of int8, whose scale is that of the values: no output can exceed it.
    DynamicInt8,
    /// Those of a calibration, of tensors that are balanced by it, for inputs and for an output of int8; what exceeds them saturates.
    Static(Rc<Calibration>),
}

impl ScaleRule {
    /// For reports.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Dynamic => "dynamic scales, float out",
            Self::DynamicInt8 => "dynamic scales, int8 out",
            Self::Static(_) => "static scales, int8 out",
        }
    }
}

/// Attention in integers, on a backend of `attn`.
pub struct Integer {
    backend: Box<dyn Backend>,
    rule: ScaleRule,
    floats: [Vec<f32>; 3],
    integers: [Vec<i8>; 3],
    out: Vec<i8>,
    out_floats: Vec<f32>,
    /// Of elements that were quantised with static scales.
    saturated: u64,
    quantised: u64,
}

impl Integer {
    /// Opens a backend.
    ///
    /// # Errors
    /// A backend that is not there, or that has no floats for [`ScaleRule::Dynamic`].
    pub fn new(kind: BackendKind, options: &Options, rule: ScaleRule) -> Result<Self, Error> {
        let backend = kind.open(options)?;
        if rule == ScaleRule::Dynamic && !backend.limits().floats {
            return Err(Error::FloatOutput { backend: backend.name().to_owned() });
        }
        let (floats, integers) = (Default::default(), Default::default());
        Ok(Self {
            backend,
            rule,
            floats,
            integers,
            out: Vec::new(),
            out_floats: Vec::new(),
            saturated: 0,
            quantised: 0,
        })
    }

    /// Attends once by this rule in place of its own.
    pub(crate) fn attend_by(
        &mut self,
        rule: ScaleRule,
        site: Site,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
    ) -> Result<Tensor, Error> {
        let own = mem::replace(&mut self.rule, rule);
        let out = self.attend(site, query, key, value);
        self.rule = own;
        out
    }

    /// What results are labelled with: backend and rule of the scales.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{}, {}", self.backend.name(), self.rule.name())
    }

    /// Whether the backend stands in for a device that is not there: its times say nothing.
    #[must_use]
    pub fn is_emulated(&self) -> bool {
        self.backend.is_emulated()
    }

    /// The name of the backend.
    #[must_use]
    pub fn backend_name(&self) -> &str {
        self.backend.name()
    }

    /// The share of the elements of inputs that exceeded their static scale since this was last called.
    pub fn take_saturated(&mut self) -> f64 {
        mem::take(&mut self.saturated) as f64 / mem::take(&mut self.quantised).max(1) as f64
    }

    /// Quantises, attends to int8, and writes the output as floats.
    fn attend_int8(&mut self, site: Site, heads: usize, dim: usize) -> Result<(), Error> {
        let floats = self.floats.each_ref().map(Vec::as_slice);
        let scales = match &self.rule {
            ScaleRule::Static(calibration) => &calibration.at(site)?.scales,
            ScaleRule::Dynamic | ScaleRule::DynamicInt8 => &dynamic_scales(site, floats, heads)?,
        };
        let scales_of = [&scales.query, &scales.key, &scales.value];
        let tensors = [Name::Query, Name::Key, Name::Value].into_iter().zip(floats).zip(scales_of);
        for (((tensor, floats), scales), integers) in tensors.zip(&mut self.integers) {
            integers.resize(floats.len(), 0);
            self.quantised += floats.len() as u64;
            let len = floats.len() / heads;
            let heads = floats.par_chunks_exact(len).zip(integers.par_chunks_exact_mut(len)).zip(scales);
            let saturated = heads.map(|((floats, integers), &scale)| quantise_with(floats, scale, integers));
            let saturated = saturated.try_reduce(|| 0, |a, b| Ok(a + b));
            self.saturated += saturated.map_err(|error| Error::Quantise { site, tensor, error })? as u64;
        }
        let parameters = (0..heads).map(|h| {
            let [query, key, value, out] =
                [&scales.query, &scales.key, &scales.value, &scales.out].map(|scales| scales[h]);
            Parameters::new(dim, Scales { query, key, value, out })
        });
        let parameters =
            parameters.collect::<Result<Vec<_>, _>>().map_err(|error| Error::Parameters { site, error })?;
        let [query, key, value] = &self.integers;
        let masks = vec![Mask::new(); heads];
        self.out.resize(query.len(), 0);
        let inputs =
            Heads { parameters: &parameters, masks: &masks, kv_heads: heads, inputs: Inputs { query, key, value } };
        self.backend.attend(inputs, &mut self.out, &|_| ())?;
        let len = self.out.len() / heads;
        self.out_floats.resize(self.out.len(), 0.0);
        self.out_floats.par_chunks_exact_mut(len).zip(self.out.par_chunks_exact(len)).zip(&scales.out).for_each(
            |((out, steps), scale)| {
                out.iter_mut().zip(steps).for_each(|(out, &step)| *out = f32::from(step) * scale);
            },
        );
        Ok(())
    }
}

/// The scales of a call's own tensors; the output's is that of the values.
fn dynamic_scales(site: Site, floats: [&[f32]; 3], heads: usize) -> Result<HeadScales, Error> {
    let scales = |tensor, floats: &[f32]| {
        let heads = floats.chunks_exact(floats.len() / heads);
        let scales = heads.map(|head| largest(head).map(scale_of)).collect::<Result<Vec<_>, _>>();
        scales.map_err(|error| Error::Quantise { site, tensor, error })
    };
    let [query, key, value] = floats;
    let value = scales(Name::Value, value)?;
    Ok(HeadScales { query: scales(Name::Query, query)?, key: scales(Name::Key, key)?, out: value.clone(), value })
}

impl Attention for Integer {
    fn attend(&mut self, site: Site, query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Tensor, Error> {
        for (tensor, floats) in [query, key, value].into_iter().zip(&mut self.floats) {
            floats.resize(tensor.numel(), 0.0);
            tensor.f_contiguous()?.f_copy_data(floats, tensor.numel())?;
        }
        let (heads, _, dim) = query.size3()?;
        let (heads, dim) = (heads as usize, dim as usize);
        if self.rule == ScaleRule::Dynamic {
            let [query, key, value] = &self.floats;
            let masks = vec![Mask::new(); heads];
            self.out_floats.resize(query.len(), 0.0);
            let floats = FloatHeads { dim, masks: &masks, kv_heads: heads, query, key, value };
            self.backend.attend_f32(floats, &mut self.out_floats, &|_| ())?;
        } else {
            self.attend_int8(site, heads, dim)?;
        }
        Ok(Tensor::f_from_slice(&self.out_floats)?.f_reshape(query.size())?)
    }
}

/// What attention itself takes, around another one.
pub struct Timed<'a> {
    attention: &'a mut dyn Attention,
    times: Vec<Duration>,
}

impl<'a> Timed<'a> {
    /// Around this one.
    pub fn new(attention: &'a mut dyn Attention) -> Self {
        Self { attention, times: Vec::new() }
    }

    /// The time of every call, in order.
    #[must_use]
    pub fn times(&self) -> &[Duration] {
        &self.times
    }
}

impl Attention for Timed<'_> {
    fn attend(&mut self, site: Site, query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Tensor, Error> {
        let start = Instant::now();
        let out = self.attention.attend(site, query, key, value);
        self.times.push(start.elapsed());
        out
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Encoder => "encoder self-attention",
            Self::DecoderSelf => "decoder self-attention",
            Self::DecoderCross => "decoder cross-attention",
        })
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of layer {}", self.stage, self.layer)
    }
}

//! What is measured: shapes, and the numbers in them.

use std::{error::Error, fmt, str::FromStr};

use attn_fixed::{AttentionError, Heads, Inputs, MAX_DIM, MAX_KEYS, MIN_DIM, Mask, ParameterError, Parameters};
#[cfg(any(feature = "torch", test))]
use ndarray::Array3;

use super::BenchError;
use crate::{
    npz::Qkv,
    problem::{Floats, Problem, ProblemError, calibrated_scale, largest_magnitude},
    suite::{Random, whisper_heads},
};

/// Heads, each with keys and values of its own, queries and keys per head, and the head dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Heads.
    pub heads: usize,
    /// Queries per head.
    pub queries: usize,
    /// Keys per head.
    pub keys: usize,
    /// Head dimension.
    pub dim: usize,
}

impl Shape {
    /// A tensor has at most so many elements, 512 MiB in float64. With three such tensors a run takes 5 GB, most of it for
    /// libtorch and the truth.
    pub const MAX_ELEMENTS: usize = 1 << 26;

    /// Multiply-accumulates of both products, `2 · heads · queries · keys · dim`.
    #[must_use]
    pub fn macs(self) -> u64 {
        2 * [self.heads, self.queries, self.keys, self.dim].map(|x| x as u64).iter().product::<u64>()
    }

    fn check(self) -> Result<Self, ShapeError> {
        let Self { heads, queries, keys, dim } = self;
        if heads == 0 || queries == 0 || keys == 0 {
            return Err(ShapeError::Zero { got: self });
        }
        if !(MIN_DIM..=MAX_DIM).contains(&dim) {
            return Err(ShapeError::Dim(ParameterError::Dim { got: dim }));
        }
        if keys > MAX_KEYS {
            return Err(ShapeError::Keys(AttentionError::TooManyKeys { got: keys }));
        }
        let elements = queries.max(keys).checked_mul(heads).and_then(|rows| rows.checked_mul(dim));
        match elements {
            Some(elements) if elements <= Self::MAX_ELEMENTS => Ok(self),
            _ => Err(ShapeError::Elements { got: self }),
        }
    }
}

/// `HEADSxQUERIESxKEYSxDIM`
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}x{}", self.heads, self.queries, self.keys, self.dim)
    }
}

impl FromStr for Shape {
    type Err = ShapeError;

    fn from_str(text: &str) -> Result<Self, ShapeError> {
        let form = || ShapeError::Form { got: text.to_owned() };
        let lengths: Vec<usize> = text.split('x').map(str::parse).collect::<Result<_, _>>().map_err(|_| form())?;
        let [heads, queries, keys, dim] = lengths[..] else { return Err(form()) };
        Self { heads, queries, keys, dim }.check()
    }
}

/// What is no [`Shape`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ShapeError {
    /// Not four numbers.
    Form {
        /// The text given.
        got: String,
    },
    /// Nothing to attend.
    Zero {
        /// The shape.
        got: Shape,
    },
    /// A dimension that attention does not take.
    Dim(ParameterError),
    /// More keys than attention takes.
    Keys(AttentionError),
    /// Tensors that are too large to be measured.
    Elements {
        /// The shape.
        got: Shape,
    },
}

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form { got } => write!(f, "shape: got `{got}`, expected four numbers, HEADSxQUERIESxKEYSxDIM"),
            Self::Zero { got } => write!(f, "shape: got {got}, expected no zero in it"),
            Self::Dim(error) => write!(f, "shape: {error}"),
            Self::Keys(error) => write!(f, "shape: {error}"),
            Self::Elements { got } => {
                let most = Shape::MAX_ELEMENTS;
                write!(f, "shape: got {got}, expected at most {most} elements in a tensor of it")
            }
        }
    }
}

impl Error for ShapeError {}

/// What goes in and comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// Int8 with scales; the output scale is calibrated. Others get the dequantised integers in floats and return floats.
    Int8,
    /// Float32 for everybody.
    F32,
}

/// Where the numbers are from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// Whole heads of Whisper-base, one of each of its six layers; the seventh is the first again.
    WhisperHeads,
    /// One query of each of these heads, that of the frame in the middle.
    WhisperQueries,
    /// Tiles of these heads along the diagonal: tile `i` is of layer `i % 6`.
    WhisperTiles,
    /// Standard normal.
    Normal,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WhisperHeads => "heads of Whisper-base, one of each layer, repeated from the seventh on",
            Self::WhisperQueries => {
                "one query of heads of Whisper-base, one of each layer, repeated from the seventh on"
            }
            Self::WhisperTiles => "tiles of Whisper-base, of every layer in turn",
            Self::Normal => "normal numbers",
        })
    }
}

/// One attention to be measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// What results are labelled with.
    pub name: String,
    /// Its shape.
    pub shape: Shape,
    /// Its types.
    pub io: Io,
    source: Source,
}

/// The workloads of the project, each with int8 and with float32 inputs and outputs:
///
/// - one tile, and 64 of them;
/// - the encoder self-attention of one Whisper-base layer;
/// - other dimensions, at the 512 tokens of a BERT or a prompt;
/// - one step of a Whisper-base decoder: one query for each of the 8 heads, against the 1500 frames of the encoder, and
///   against ten times as many. What a backend or a peer does to keys and values is done within the call, as everywhere:
///   floats are quantised in each one, which a decoder that keeps its integers would do once.
#[must_use]
pub fn workloads() -> Vec<Workload> {
    [
        ("tile-64x64x64", [1, 64, 64, 64], Source::WhisperTiles),
        ("tiles64-64x64x64", [64, 64, 64, 64], Source::WhisperTiles),
        ("whisper-8x1500x64", [8, 1500, 1500, 64], Source::WhisperHeads),
        ("dim32-8x512x32", [8, 512, 512, 32], Source::Normal),
        ("dim80-8x512x80", [8, 512, 512, 80], Source::Normal),
        ("dim128-8x512x128", [8, 512, 512, 128], Source::Normal),
        ("query-8x1x1500x64", [8, 1, 1500, 64], Source::WhisperQueries),
        ("query-8x1x15000x64", [8, 1, 15_000, 64], Source::Normal),
    ]
    .into_iter()
    .flat_map(|(name, [heads, queries, keys, dim], source)| {
        both(name.to_owned(), Shape { heads, queries, keys, dim }, source)
    })
    .collect()
}

/// The workloads of a shape: normal numbers, int8 and float32.
#[must_use]
pub fn of_shape(shape: Shape) -> Vec<Workload> {
    both(shape.to_string(), shape, Source::Normal).into()
}

fn both(name: String, shape: Shape, source: Source) -> [Workload; 2] {
    [
        Workload { name: name.clone(), shape, io: Io::Int8, source },
        Workload { name: name + "-f32io", shape, io: Io::F32, source },
    ]
}

/// Name, types, shape, and where the numbers are from.
impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shape { heads, queries, keys, dim } = self.shape;
        let io = match self.io {
            Io::Int8 => "int8",
            Io::F32 => "float32",
        };
        write!(f, "{}: {heads} x {queries} x {keys} x {dim} {io}, {}", self.name, self.source)
    }
}

/// The numbers of a workload, and what is expected of them.
pub struct Data {
    /// The types.
    pub(super) io: Io,
    /// The shape.
    pub(super) shape: Shape,
    /// What is quantised.
    pub(super) floats: Floats,
    /// The integers of it.
    pub(super) problem: Problem,
    /// For the integers, with the calibrated output scale.
    pub(super) parameters: Vec<Parameters>,
    /// One per head.
    pub(super) out_scales: Vec<f32>,
    /// Float64 attention over the inputs of the workload's types, `[queries, dim]` of each head.
    pub(super) truth: Vec<Vec<f64>>,
}

impl Workload {
    /// Makes the numbers, the same ones on every machine, and their float64 attention.
    ///
    /// # Errors
    /// A fixture that cannot be read.
    pub fn data(&self) -> Result<Data, BenchError> {
        let Self { shape, io, .. } = *self;
        let floats = Floats { heads: shape.heads, kv_heads: shape.heads, dim: shape.dim, tensors: self.tensors()? };
        let problem = Problem::quantised(&floats)?;
        let truth = problem.for_groups(|kv_head| {
            let group = match io {
                Io::Int8 => problem.dequantised(kv_head),
                Io::F32 => problem.group_of(&floats.tensors, kv_head),
            };
            Ok::<_, ProblemError>(group.truth(&|_| ())?)
        })?;
        let truth = truth.concat();
        let scale = |(truth, &value): (&Vec<f64>, _)| calibrated_scale(largest_magnitude(truth), value);
        let out_scales: Vec<f32> = truth.iter().zip(&problem.scales.value).map(scale).collect();
        let parameters = problem.parameters(&out_scales)?;
        Ok(Data { io, shape, floats, problem, parameters, out_scales, truth })
    }

    fn tensors(&self) -> Result<Qkv<Vec<f32>>, BenchError> {
        let Shape { heads, queries, keys, dim } = self.shape;
        if self.source == Source::Normal {
            // The numbers of a shape do not depend on which others are measured.
            return Ok(Random::new(keys as u64).tensors(heads * queries, heads * keys, dim));
        }
        let (whisper, floats) = whisper_heads()?;
        let frames = whisper.keys;
        // From which frame on queries and keys of a head are taken.
        let first = |head: usize| match self.source {
            Source::WhisperQueries => [frames / 2, 0],
            Source::WhisperTiles => [head / whisper.heads * 2 * keys; 2],
            Source::WhisperHeads | Source::Normal => [0, 0],
        };
        let cut = |tensor: &[f32], which: usize, rows: usize| -> Vec<f32> {
            let head = |head: usize| {
                let row = head % whisper.heads * frames + first(head)[which];
                &tensor[row * dim..][..rows * dim]
            };
            (0..heads).flat_map(head).copied().collect()
        };
        Ok(Qkv {
            query: cut(&floats.query, 0, queries),
            key: cut(&floats.key, 1, keys),
            value: cut(&floats.value, 1, keys),
        })
    }
}

impl Data {
    /// A mask for each head: every query sees every key.
    #[must_use]
    pub fn masks(&self) -> Vec<Mask<'static>> {
        vec![Mask::new(); self.shape.heads]
    }

    /// The integers, as a backend gets them.
    #[must_use]
    pub fn heads<'a>(&'a self, masks: &'a [Mask<'a>]) -> Heads<'a> {
        let Qkv { query, key, value } = &self.problem.tensors;
        let inputs = Inputs { query, key, value };
        Heads { parameters: &self.parameters, masks, kv_heads: self.problem.kv_heads, inputs }
    }

    /// Query, key and value as whoever computes in floats gets them: `[heads, rows, dim]`.
    #[cfg(any(feature = "torch", test))]
    pub(super) fn float64(&self) -> [Array3<f64>; 3] {
        let Shape { heads, queries, keys, dim } = self.shape;
        let (floats, integers, scales) = (&self.floats.tensors, &self.problem.tensors, &self.problem.scales);
        [
            (&floats.query, &integers.query, &scales.query, queries),
            (&floats.key, &integers.key, &scales.key, keys),
            (&floats.value, &integers.value, &scales.value, keys),
        ]
        .map(|(floats, integers, scales, rows)| {
            let values = match self.io {
                Io::F32 => floats.iter().map(|&x| x.into()).collect(),
                Io::Int8 => {
                    let heads = integers.chunks_exact(rows * dim).zip(scales);
                    heads
                        .flat_map(|(head, &scale)| head.iter().map(move |&x| f64::from(x) * f64::from(scale)))
                        .collect()
                }
            };
            Array3::from_shape_vec([heads, rows, dim], values).expect("whole heads")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_read_and_limited() {
        let shape: Shape = "8x1x1500x64".parse().expect("a shape");
        assert_eq!(shape, Shape { heads: 8, queries: 1, keys: 1500, dim: 64 });
        assert_eq!((shape.to_string().as_str(), shape.macs()), ("8x1x1500x64", 1_536_000));
        assert!("1x1x1048576x64".parse::<Shape>().is_ok());
        for (text, expected) in [
            ("", "shape: got ``, expected four numbers, HEADSxQUERIESxKEYSxDIM"),
            ("8x1500x64", "shape: got `8x1500x64`, expected four numbers, HEADSxQUERIESxKEYSxDIM"),
            ("1x2x-3x8", "shape: got `1x2x-3x8`, expected four numbers, HEADSxQUERIESxKEYSxDIM"),
            (
                "99999999999999999999x1x1x8",
                "shape: got `99999999999999999999x1x1x8`, expected four numbers, HEADSxQUERIESxKEYSxDIM",
            ),
            ("1x0x1x8", "shape: got 1x0x1x8, expected no zero in it"),
            ("1x1x1x7", "shape: head dimension: got 7, expected 8 to 256"),
            ("1x1x1x257", "shape: head dimension: got 257, expected 8 to 256"),
            ("1x1x1048577x8", "shape: keys: got 1048577, expected at most 1048576"),
            ("1x1x1048576x65", "shape: got 1x1x1048576x65, expected at most 67108864 elements in a tensor of it"),
            (
                "18446744073709551615x2x2x8",
                "shape: got 18446744073709551615x2x2x8, expected at most 67108864 elements in a tensor of it",
            ),
        ] {
            assert_eq!(text.parse::<Shape>().expect_err(text).to_string(), expected);
        }
    }

    #[test]
    fn every_workload_has_numbers_of_its_shape() {
        let all = workloads();
        assert_eq!(all.len(), 16);
        for workload in all {
            let Shape { heads, queries, keys, dim } = workload.shape.check().expect("a shape");
            let Qkv { query, key, value } = workload.tensors().expect("numbers");
            let expected = [heads * queries, heads * keys, heads * keys].map(|rows| rows * dim);
            assert_eq!([query.len(), key.len(), value.len()], expected, "{workload}");
        }
    }

    #[test]
    fn integers_are_measured_against_integers_and_floats_against_floats() {
        let [int8, f32] = both("small".to_owned(), "2x3x5x8".parse().expect("a shape"), Source::Normal);
        let (int8, f32) = (int8.data().expect("data"), f32.data().expect("data"));
        assert_eq!(int8.floats.tensors, f32.floats.tensors);
        let widen = |tensor: &[f32]| tensor.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        let [query, ..] = f32.float64();
        assert_eq!(query.into_raw_vec_and_offset().0, widen(&f32.floats.tensors.query));
        let [query, key, value] = int8.float64();
        let group = int8.problem.dequantised(1);
        assert_eq!(query.index_axis(ndarray::Axis(0), 1), group.query.index_axis(ndarray::Axis(0), 0));
        assert_eq!(key.index_axis(ndarray::Axis(0), 1), group.key);
        assert_eq!(value.index_axis(ndarray::Axis(0), 1), group.value);
        assert_eq!(int8.truth[1], group.truth(&|_| ()).expect("finite").concat());
        assert_ne!(int8.truth, f32.truth);
    }
}

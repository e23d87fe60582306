//! The built-in cases.

use std::{io::Cursor, sync::LazyLock};

use attn_ref::tolerance;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

use super::{Case, CaseError, Expectation};
use crate::{
    mask::{BooleanMask, HeadMasks},
    npz::{self, Qkv, Values},
    problem::{Floats, Problem, ProblemError},
};

/// Every built-in case: the users' acceptance data, raw integers, real Whisper-base heads, and what is hard.
///
/// Fixtures and seeds are fixed: the same problems on every machine.
#[must_use]
pub fn built_in() -> Vec<Case> {
    let mut cases = vec![Case {
        group: "acceptance",
        name: "numpy seed 42, truncated to int8".to_owned(),
        tolerance: tolerance::ACCEPTANCE,
        beside: Some(tolerance::USERS),
        problem: Box::new(acceptance),
    }];
    raw_integers(&mut cases);
    whisper(&mut cases);
    hard(&mut cases);
    cases
}

/// A fixture of the package; read once.
type Fixture = LazyLock<Result<npz::Inputs, String>>;

fn load(bytes: &'static [u8], name: &str) -> Result<npz::Inputs, String> {
    npz::read_from(Cursor::new(bytes), name).map_err(|error| error.to_string())
}

static ACCEPTANCE: Fixture = Fixture::new(|| load(include_bytes!("data/acceptance.npz"), "acceptance.npz"));
static WHISPER: Fixture = Fixture::new(|| load(include_bytes!("data/whisper.npz"), "whisper.npz"));

/// Shape and floats of a fixture.
fn floats(fixture: &'static Fixture) -> Result<(&'static npz::Inputs, &'static Qkv<Vec<f32>>), CaseError> {
    match &**fixture {
        Ok(inputs @ npz::Inputs { values: Values::Float(floats), .. }) => Ok((inputs, floats)),
        Ok(_) => Err(CaseError::Fixture("a fixture holds integers, expected floats".to_owned())),
        Err(error) => Err(CaseError::Fixture(error.clone())),
    }
}

/// Real heads, one of each layer of Whisper-base: queries, keys and values of 1500 frames, 64 wide.
pub(crate) fn whisper_heads() -> Result<(&'static npz::Inputs, &'static Qkv<Vec<f32>>), CaseError> {
    floats(&WHISPER)
}

/// `(x · 127 / absmax).astype(int8)`, as the users of the 64×64 tile quantise: truncated.
fn acceptance() -> Result<(Problem, Expectation), CaseError> {
    let (inputs, floats) = floats(&ACCEPTANCE)?;
    let truncate = |values: &[f32]| {
        let largest = values.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        let quantised: Vec<i8> = values.iter().map(|x| (x * 127.0 / largest) as i8).collect();
        (quantised, vec![largest / 127.0])
    };
    let (query, key, value) = (truncate(&floats.query), truncate(&floats.key), truncate(&floats.value));
    let problem = Problem {
        heads: inputs.heads,
        kv_heads: inputs.kv_heads,
        queries: inputs.queries,
        keys: inputs.keys,
        dim: inputs.dim,
        tensors: Qkv { query: query.0, key: key.0, value: value.0 },
        scales: Qkv { query: query.1, key: key.1, value: value.1 },
        masks: HeadMasks::default(),
    };
    Ok((problem, Expectation::Floats(Box::new(floats.clone()))))
}

/// One head of integers, the same scale for each tensor.
fn integers(dim: usize, tensors: Qkv<Vec<i8>>, scale: f32) -> Problem {
    Problem {
        heads: 1,
        kv_heads: 1,
        queries: tensors.query.len() / dim,
        keys: tensors.key.len() / dim,
        dim,
        tensors,
        scales: Qkv { query: vec![scale], key: vec![scale], value: vec![scale] },
        masks: HeadMasks::default(),
    }
}

/// Integers taken as they are: softmax is almost argmax.
fn raw_integers(cases: &mut Vec<Case>) {
    for (low, high, tolerance) in
        [(-64, 63, tolerance::RAW_FULL_RANGE), (-8, 8, tolerance::RAW), (-128, 127, tolerance::RAW)]
    {
        cases.push(Case {
            group: "raw integers",
            name: format!("[{low}, {high}], scales 1"),
            tolerance,
            beside: None,
            problem: Box::new(move || {
                let mut random = Random::new(u64::from(i8::unsigned_abs(low)));
                let mut tensor = || random.int8(64 * 64, low, high);
                let tensors = Qkv { query: tensor(), key: tensor(), value: tensor() };
                Ok((integers(64, tensors, 1.0), Expectation::Integers))
            }),
        });
    }
}

/// Real heads: every layer's 64×64 tiles along the diagonal, and one whole head.
fn whisper(cases: &mut Vec<Case>) {
    let mut push = |group, name, layer, tile| {
        let problem = Box::new(move || Ok((whisper_problem(layer, tile)?, Expectation::Dequantised)));
        cases.push(Case { group, name, tolerance: tolerance::TRUTH, beside: None, problem });
    };
    for layer in 0..6 {
        push("whisper tiles", format!("layer {layer}, 64x64 along the diagonal"), layer, Some(64));
    }
    for layer in 0..6 {
        push("whisper heads", format!("layer {layer}, 1500 frames"), layer, None);
    }
}

/// The head of a layer, whole or as tiles of so many frames, each quantised by itself.
fn whisper_problem(layer: usize, tile: Option<usize>) -> Result<Problem, CaseError> {
    let (inputs, floats) = whisper_heads()?;
    let (frames, dim) = (inputs.keys, inputs.dim);
    let tile = tile.unwrap_or(frames);
    let heads = frames / tile;
    let cut = |tensor: &[f32]| tensor[layer * frames * dim..][..heads * tile * dim].to_vec();
    let tensors = Qkv { query: cut(&floats.query), key: cut(&floats.key), value: cut(&floats.value) };
    Ok(Problem::quantised(&Floats { heads, kv_heads: heads, dim, tensors })?)
}

/// Queries of the hard cases: a row block and a ragged one.
const QUERIES: usize = 72;
/// Keys of a Whisper window.
const KEYS: usize = 1500;

/// What breaks integer attention: extreme scales, attention sinks, long and ragged sequences, masks, dimensions.
fn hard(cases: &mut Vec<Case>) {
    let mut seed = 1000;
    let mut push = |name: String, problem: Box<dyn FnOnce(Random) -> Result<Problem, ProblemError>>| {
        seed += 1;
        let random = Random::new(seed);
        let problem = Box::new(move || Ok((problem(random)?, Expectation::Dequantised)));
        cases.push(Case { group: "hard", name, tolerance: tolerance::TRUTH, beside: None, problem });
    };

    push(
        "uniform int8".to_owned(),
        Box::new(|mut random| {
            let mut tensor = |rows: usize| random.int8(rows * 64, i8::MIN, i8::MAX);
            let tensors = Qkv { query: tensor(QUERIES), key: tensor(KEYS), value: tensor(KEYS) };
            // Scores with a standard deviation of a few nats.
            Ok(integers(64, tensors, 0.025))
        }),
    );
    for (name, factor) in [("normal", 1.0), ("peaked, queries x 8", 8.0), ("near-flat, queries / 16", 1.0 / 16.0)] {
        push(
            name.to_owned(),
            Box::new(move |mut random| {
                let mut tensors = random.tensors(QUERIES, KEYS, 64);
                for q in &mut tensors.query {
                    *q *= factor;
                }
                one_head(64, tensors)
            }),
        );
    }
    push(
        "three outlier channels x 12".to_owned(),
        Box::new(|mut random| {
            let mut tensors = random.tensors(QUERIES, KEYS, 64);
            for rows in [&mut tensors.query, &mut tensors.key, &mut tensors.value] {
                for row in rows.chunks_exact_mut(64) {
                    for channel in [3, 17, 40] {
                        row[channel] *= 12.0;
                    }
                }
            }
            one_head(64, tensors)
        }),
    );
    for nats in [4.0, 6.75, 9.0, 11.0] {
        for (place, at) in [("first", 0), ("middle", KEYS / 2), ("last", KEYS - 1)] {
            push(
                format!("sink of {nats} nats, {place} of {KEYS} keys"),
                Box::new(move |mut random| one_head(64, random.sinks(KEYS, &[at], nats, 1.0, 1.0))),
            );
        }
    }
    // As language models have them: the output scale is that of the little that is left.
    for (nats, value) in [(9.0, 0.0), (11.0, 0.0), (11.0, 0.02)] {
        for (place, at) in [("first", 0), ("middle", KEYS / 2), ("last", KEYS - 1)] {
            push(
                format!("sink of {nats} nats and value x {value}, {place} of {KEYS} keys"),
                Box::new(move |mut random| one_head(64, random.sinks(KEYS, &[at], nats, 0.5, value))),
            );
        }
    }
    for (place, at) in [("first", 0), ("middle", 32_768), ("last", 65_535)] {
        push(
            format!("sink of 14 nats, {place} of 65536 keys"),
            Box::new(move |mut random| one_head(64, random.sinks(65_536, &[at], 14.0, 1.0, 1.0))),
        );
    }
    // Sinks whose neighbours all round alike: what 8-bit probabilities alone lose.
    for sinks in [1, 2, 3, 4, 6] {
        for nats in [5.5, 6.25, 7.0] {
            push(
                format!("{sinks} sinks of {nats} nats, flat, 192 keys"),
                Box::new(move |mut random| {
                    let at: Vec<usize> = (70..70 + sinks).collect();
                    one_head(64, random.sinks(192, &at, nats, 0.1, 1.0))
                }),
            );
        }
    }
    for keys in [1, 31, 33, 63, 64, 65, 1499] {
        push(
            if keys == 1 { "one key".to_owned() } else { format!("{keys} keys") },
            Box::new(move |mut random| one_head(64, random.tensors(QUERIES, keys, 64))),
        );
    }
    for dim in [8, 32, 80, 128, 256] {
        push(format!("dimension {dim}"), Box::new(move |mut random| one_head(dim, random.tensors(QUERIES, 500, dim))));
    }
    masks(&mut push);
    push(
        "grouped heads, 6 queries to 2 keys".to_owned(),
        Box::new(|mut random| {
            let tensors = random.tensors(6 * QUERIES, 2 * 300, 64);
            Problem::quantised(&Floats { heads: 6, kv_heads: 2, dim: 64, tensors })
        }),
    );
}

fn masks(push: &mut impl FnMut(String, Box<dyn FnOnce(Random) -> Result<Problem, ProblemError>>)) {
    let masks = [
        ("mask: 1236 valid keys", KEYS, Some(1236), None),
        ("mask: causal", QUERIES, None, Some(0)),
        ("mask: causal after 400 cached keys", 400 + QUERIES, None, Some(400)),
        ("mask: causal, 50 valid keys", QUERIES, Some(50), Some(0)),
    ];
    for (name, keys, valid_keys, causal) in masks {
        let masks = HeadMasks { valid_keys, causal, allowed: None };
        push(
            name.to_owned(),
            Box::new(move |mut random| Ok(one_head(64, random.tensors(QUERIES, keys, 64))?.masked(masks))),
        );
    }
    for (name, visible, causal) in [
        ("mask: boolean, one key in two", 0.5, None),
        ("mask: boolean, one key in fifty, some rows empty", 0.02, None),
        ("mask: boolean and causal", 0.5, Some(100)),
    ] {
        push(
            name.to_owned(),
            Box::new(move |mut random| {
                let problem = one_head(64, random.tensors(QUERIES, 200, 64))?;
                let allowed = (0..QUERIES * 200).map(|i| i / 200 % 10 != 3 && random.0.random_bool(visible)).collect();
                let allowed = BooleanMask::broadcast(allowed, &[QUERIES, 200], &[], [QUERIES, 200]);
                Ok(problem.masked(HeadMasks { allowed, causal, valid_keys: None }))
            }),
        );
    }
}

fn one_head(dim: usize, tensors: Qkv<Vec<f32>>) -> Result<Problem, ProblemError> {
    Problem::quantised(&Floats { heads: 1, kv_heads: 1, dim, tensors })
}

/// A portable generator: the same numbers on every machine.
#[derive(Clone)]
pub(crate) struct Random(ChaCha8Rng);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    fn int8(&mut self, len: usize, low: i8, high: i8) -> Vec<i8> {
        (0..len).map(|_| self.0.random_range(low..=high)).collect()
    }

    fn normal(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.0.sample(StandardNormal)).collect()
    }

    /// Standard normal, `[rows, dim]`.
    pub(crate) fn tensors(&mut self, queries: usize, keys: usize, dim: usize) -> Qkv<Vec<f32>> {
        Qkv { query: self.normal(queries * dim), key: self.normal(keys * dim), value: self.normal(keys * dim) }
    }

    /// Keys `at` score `nats` for every query, their values are multiplied by `value`; the others score as random keys times
    /// `spread`.
    fn sinks(&mut self, keys: usize, at: &[usize], nats: f32, spread: f32, value: f32) -> Qkv<Vec<f32>> {
        // Queries share this component along the first axis, in which the other keys have none.
        const SHARED: f32 = 4.0;
        let dim = 64;
        let mut tensors = self.tensors(QUERIES, keys, dim);
        for query in tensors.query.chunks_exact_mut(dim) {
            query[0] = SHARED;
        }
        let rows = tensors.key.chunks_exact_mut(dim).zip(tensors.value.chunks_exact_mut(dim));
        for (j, (key, values)) in rows.enumerate() {
            if at.contains(&j) {
                for v in values {
                    *v *= value;
                }
                key.fill(0.0);
                key[0] = nats * (dim as f32).sqrt() / SHARED;
            } else {
                for k in &mut *key {
                    *k *= spread;
                }
                key[0] = 0.0;
            }
        }
        tensors
    }
}

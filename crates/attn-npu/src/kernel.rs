//! The kernels' entry points, safe: objects that fit each other go in, and only what was packed can.
#![allow(unsafe_code, reason = "functions in C")]

use std::{error::Error, fmt};

use attn_fixed::MAX_KEYS;

use crate::layout::{Block, Output, Query, State, Tile};

/// A kernel, compiled for this CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kernel {
    /// `kernels/attention_tile.c`, portable C.
    Portable,
    /// `kernels/aie2/attention_tile.cc`, the vector kernel for AIE2, on a model of its instructions.
    Aie2Model,
}

impl Kernel {
    /// Every kernel.
    pub const ALL: [Self; 2] = [Self::Portable, Self::Aie2Model];

    /// Its name as a backend.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "kernel",
            Self::Aie2Model => "aie2-model",
        }
    }

    /// What results are labelled with: an NPU's kernel, but not on an NPU.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Portable => "kernel (host)",
            Self::Aie2Model => "aie2-model (host)",
        }
    }

    /// What it is, and that it ran on a CPU, in a line.
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Self::Portable => "the NPU's kernel in portable C, run on this CPU: no NPU computed this",
            Self::Aie2Model => {
                "the NPU's vector kernel, run on this CPU on a model of the NPU's instructions: no NPU computed this"
            }
        }
    }

    /// Its entry points.
    ///
    /// # Errors
    /// It was not compiled when this crate was.
    pub const fn entry_points(self) -> Result<EntryPoints, Unavailable> {
        match self {
            #[cfg(kernel)]
            Self::Portable => Ok(portable::ENTRY_POINTS),
            #[cfg(aie2_model)]
            Self::Aie2Model => Ok(aie2_model::ENTRY_POINTS),
            #[cfg(not(all(kernel, aie2_model)))]
            _ => Err(Unavailable(self)),
        }
    }
}

/// A kernel that was not compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable(pub Kernel);

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(kernel) = self;
        let why = match kernel {
            Kernel::Portable => {
                "there was no gcc or clang when this was built, or the machine is big-endian (`apt-get install gcc`, then \
                 build again)"
            }
            Kernel::Aie2Model => {
                "there was no g++ or clang++ that knows C++20 when this was built, or the machine is big-endian \
                  (`apt-get install g++`, then build again)"
            }
        };
        write!(f, "{}: {why}", kernel.name())
    }
}

impl Error for Unavailable {}

/// The four functions of `kernels/attention_tile.h`.
#[derive(Clone, Copy, Debug)]
pub struct EntryPoints {
    /// What comes before each of the others.
    prepare: Option<unsafe extern "C" fn()>,
    tile: unsafe extern "C" fn(*const i8, *mut i8),
    start: unsafe extern "C" fn(*const i8, *mut i8),
    absorb: unsafe extern "C" fn(*const i8, *const i8, *mut i8),
    finish: unsafe extern "C" fn(*const i8, *const i8, *mut i8),
}

impl EntryPoints {
    /// Attends all queries of a tile.
    ///
    /// # Panics
    /// A tile that nothing was packed into.
    pub fn tile(&self, tile: &Tile, out: &mut Output) {
        out.resize(tile.shape);
        self.prepare();
        // SAFETY: a tile object as `Tile::join` makes it, and room for its output object.
        unsafe { (self.tile)(tile.buffer.as_ptr(), out.buffer.as_mut_ptr()) }
    }

    /// Starts a sequence: no query has seen a key.
    ///
    /// # Panics
    /// Queries that nothing was packed into.
    pub fn start(&self, query: &Query, state: &mut State) {
        state.resize(query.shape);
        self.prepare();
        // SAFETY: a query object as `Query::pack` makes it, and room for its state.
        unsafe { (self.start)(query.buffer.as_ptr(), state.buffer.as_mut_ptr()) }
    }

    /// Attends to the next block of keys.
    ///
    /// # Panics
    /// A state that was not started with queries of this shape, a block of another dimension, more than [`MAX_KEYS`] keys.
    pub fn absorb(&self, query: &Query, block: &Block, state: &mut State) {
        assert_eq!(query.shape, state.shape, "the state of these queries");
        assert_eq!(query.shape.dim(), block.dim, "one dimension");
        assert!(state.next_key() < MAX_KEYS as i32, "at most 2^20 keys");
        self.prepare();
        // SAFETY: a query object, a block object as `Block::pack` makes it, and a state of the same shape, which was started.
        unsafe { (self.absorb)(query.buffer.as_ptr(), block.buffer.as_ptr(), state.buffer.as_mut_ptr()) }
    }

    /// Ends a sequence.
    ///
    /// # Panics
    /// A state that was not started with queries of this shape.
    pub fn finish(&self, query: &Query, state: &State, out: &mut Output) {
        assert_eq!(query.shape, state.shape, "the state of these queries");
        out.resize(query.shape);
        self.prepare();
        // SAFETY: a query object, its state, and room for its output object.
        unsafe { (self.finish)(query.buffer.as_ptr(), state.buffer.as_ptr(), out.buffer.as_mut_ptr()) }
    }

    fn prepare(&self) {
        if let Some(prepare) = self.prepare {
            // SAFETY: it takes nothing.
            unsafe { prepare() }
        }
    }
}

/// Declares a kernel's entry points by their names in C.
#[cfg(any(kernel, aie2_model))]
macro_rules! entry_points {
    ($kernel:ident: $prepare:expr, $tile:ident, $start:ident, $absorb:ident, $finish:ident) => {
        mod $kernel {
            unsafe extern "C" {
                fn $tile(tile: *const i8, out: *mut i8);
                fn $start(query: *const i8, state: *mut i8);
                fn $absorb(query: *const i8, block: *const i8, state: *mut i8);
                fn $finish(query: *const i8, state: *const i8, out: *mut i8);
            }

            pub(super) const ENTRY_POINTS: super::EntryPoints =
                super::EntryPoints { prepare: $prepare, tile: $tile, start: $start, absorb: $absorb, finish: $finish };
        }
    };
}

#[cfg(kernel)]
entry_points!(portable: None, attn_kernel_tile, attn_kernel_start, attn_kernel_absorb, attn_kernel_finish);
#[cfg(aie2_model)]
entry_points!(
    aie2_model: Some(crate::model::model_forget_modes),
    attn_aie2_tile,
    attn_aie2_start,
    attn_aie2_absorb,
    attn_aie2_finish
);

#[cfg(all(test, kernel))]
mod tests {
    //! What the kernels compute once per row, in C, against `attn_fixed`, on every input or a dense sample of them.

    use attn_fixed::{
        MAX_SCORE, Parameters, Scales,
        exp2::exp2,
        requantise::{Requantiser, reciprocal},
        types::Distance,
    };

    unsafe extern "C" {
        safe fn attn_host_exp2(distance: i32) -> i32;
        safe fn attn_host_octaves(score: i32, score_multiplier: i32, score_shift: i32) -> i32;
        safe fn attn_host_log2(x: i32) -> i32;
        safe fn attn_host_reciprocal(mantissa: i32) -> i32;
        fn attn_host_requantiser(sum: i32, gain: i32, gain_exponent: i32, out: *mut i32);
    }

    #[test]
    fn exp2_of_every_distance() {
        for bits in 0..=u16::MAX {
            assert_eq!(attn_host_exp2(bits.into()), i32::from(exp2(Distance::from_bits(bits)).to_bits()), "{bits}");
        }
    }

    #[test]
    fn octaves_are_the_rounded_64_bit_product_for_every_shift() {
        for shift in -14..=24 {
            for multiplier in [0, 1, 2, 0x7fff, 0x8000, 0x8001, 0xa5a5, 0xc000, 0xfffe, 0xffff_i64] {
                let exact = |score: i32| (i64::from(score) * multiplier + (1_i64 << (shift + 15))) >> (shift + 16);
                // The scale limits the octaves: of the largest score of a dimension, to less than 2^31 · 0.73.
                let limit = (i64::from(MAX_SCORE) * multiplier) >> (shift + 16);
                let largest = if limit < 1_550_000_000 {
                    MAX_SCORE
                } else {
                    ((1_550_000_000_i64 << (shift + 16)) / multiplier) as i32
                };
                let scores = (-largest..=largest).step_by(1013).chain(-5000..=5000).chain([largest]);
                for score in scores.filter(|score| score.abs() <= largest) {
                    let got = attn_host_octaves(score, multiplier as i32, shift);
                    assert_eq!(i64::from(got), exact(score), "{score} {multiplier} {shift}");
                }
            }
        }
    }

    #[test]
    fn the_reciprocal_of_every_mantissa() {
        for mantissa in 1 << 15..=u16::MAX {
            let got = attn_host_reciprocal(mantissa.into());
            assert_eq!(got as u32, (1 << 31) / u32::from(mantissa), "{mantissa}");
            assert_eq!(got.min(65_535) as u16, reciprocal(mantissa).to_bits(), "{mantissa}");
        }
    }

    #[test]
    #[ignore = "left to `cargo xtask release-checked`"]
    fn the_logarithm_of_every_sum() {
        for x in 1..1 << 30 {
            assert!(attn_host_log2(x) == x.ilog2() as i32, "{x}");
        }
    }

    #[test]
    fn requantisers_of_sums_and_gains() {
        for gain in (-64..=64).map(|i| (i as f32 / 4.0).exp2()).filter(|gain| *gain <= 65_536.0) {
            let p = Parameters::new(64, Scales { query: 1.0, key: 1.0, value: gain, out: 1.0 }).expect("in range");
            let sums =
                (21..30).flat_map(|bits| (0..1 << bits).step_by((1 << bits) / 257).map(move |low| (1 << bits) + low));
            for sum in sums.chain([(1 << 30) - 1]) {
                let expected = Requantiser::new(&p, sum);
                let mut got = [0; 3];
                // SAFETY: it writes three numbers.
                unsafe {
                    attn_host_requantiser(sum, p.gain().to_bits().into(), p.gain_exponent(), got.as_mut_ptr());
                }
                let expected = [expected.narrow as i32, expected.multiplier.to_bits().into(), expected.widen as i32];
                assert_eq!(got, expected, "{sum} {gain}");
            }
        }
    }
}

#[cfg(all(test, aie2_model))]
mod vector_tests {
    //! Steps of the vector kernel against `attn_fixed`.

    use attn_fixed::{
        MAX_SCORE, Parameters, Scales,
        block::{distance, probability},
        exp2::exp2,
        types::Distance,
    };

    /// Eight units of 32 lanes.
    const LANES: usize = 256;

    unsafe extern "C" {
        fn attn_aie2_powers(distances: *const i16, powers: *mut i16, probabilities: *mut u8);
        fn attn_aie2_distances(
            score_multiplier: i32,
            score_shift: i32,
            maximum: i32,
            scores: *const i32,
            distances: *mut i16,
        );
    }

    #[test]
    fn powers_of_every_distance() {
        let distances: Vec<i16> = (0..=i16::MAX).collect();
        for distances in distances.chunks_exact(LANES) {
            let (mut powers, mut probabilities) = ([0; LANES], [0; LANES]);
            // SAFETY: 256 of each.
            unsafe { attn_aie2_powers(distances.as_ptr(), powers.as_mut_ptr(), probabilities.as_mut_ptr()) };
            for ((&t, y), p) in distances.iter().zip(powers).zip(probabilities) {
                let expected = exp2(Distance::from_bits(t as u16));
                assert_eq!((y, p), (expected.to_bits(), probability(expected).to_bits()), "{t}");
            }
        }
    }

    /// The specified distance, but that all those whose powers are 0 are the same.
    #[test]
    fn distances_of_every_shift() {
        let mut shifts = std::collections::BTreeSet::new();
        let scales =
            (-1360..=140).map(|i| (i as f32 / 40.0).exp2()).chain([32.0 / 8.0_f32.sqrt() * 0.999, f32::from_bits(1)]);
        for scale in scales {
            // The smallest dimension has the steepest scale.
            let Ok(p) = Parameters::new(8, Scales { query: scale, key: 1.0, value: 1.0, out: 1.0 }) else { continue };
            shifts.insert(p.score_shift());
            let multiplier = i32::from(p.score_multiplier().to_bits());
            let largest = 2 * MAX_SCORE;
            // What there is near the edges, and a sample of the rest.
            let unit = 1_i64 << p.score_shift().clamp(0, 23);
            let edges = [0, 30_720, 32_767, 32_768, 65_535].map(|x| (x * unit).min(largest.into()) as i32);
            let below = edges.iter().flat_map(|&edge| (-20..20).map(move |step| edge.saturating_add(step)));
            let below = below.chain((0..largest).step_by(largest as usize / 800)).chain([largest - 1, largest]);
            let below: Vec<i32> = below.filter(|below| (0..=largest).contains(below)).collect();
            for below in below.chunks(LANES) {
                let mut scores = [MAX_SCORE; LANES];
                for (score, below) in scores.iter_mut().zip(below) {
                    *score = MAX_SCORE - below;
                }
                let mut got = [0; LANES];
                // SAFETY: 256 of each.
                unsafe {
                    attn_aie2_distances(multiplier, p.score_shift(), MAX_SCORE, scores.as_ptr(), got.as_mut_ptr());
                }
                for (&below, got) in below.iter().zip(got) {
                    let expected = distance(&p, below).to_bits();
                    let equal = i32::from(got) == i32::from(expected) || (got >= 30_720 && expected >= 30_720);
                    assert!(equal, "{below} below, {multiplier} {}: got {got}, expected {expected}", p.score_shift());
                }
            }
        }
        assert_eq!(shifts, (-14..=24).collect());
    }
}

//! Scaled dot-product attention, `softmax(q·kᵀ / √d) · v`, in integers only: int8 in, int8 out, int32 between. This
//! crate is the **specification** of the arithmetic: every backend gives these bits, on every input.
//!
//! `no_std`, no allocation, no unsafe code, no float but in [`Parameters::new`], the quantisers and outputs of `f32`.
//!
//! # The way of a tile
//! | step | module |
//! |---|---|
//! | float tensors become int8 and a scale | [`quantise`](mod@quantise) |
//! | the scales become fixed-point [`Parameters`] | [`scale`] |
//! | each query meets the keys in blocks of [`BLOCK`]: scores, their maximum, weights relative to it | [`block`], [`exp2`](mod@exp2) |
//! | the blocks are merged into a row | [`row`] |
//! | the row is divided by its sum and becomes int8, or floats | [`output`], [`requantise`] |
//!
//! [`attend`] does the last three for slices of any length, [`attend_tile`] for a tile whose shape the compiler knows;
//! [`Heads`] is how several heads are handed to a backend, [`FloatHeads`] how they are in floats.
//! [`types`] tells the width of every quantity.
//!
//! # Contract
//! - **Shapes.** Head dimension [`MIN_DIM`] to [`MAX_DIM`], 1 to [`MAX_KEYS`] keys, any number of queries.
//! - **Scales.** One rule from flat attention to raw integers: see [`Parameters::new`] for the limits.
//! - **Masks.** What [`Mask`] hides has no influence on any bit: `n` visible keys give the bits of keys and values cut to
//!   `n`. A row that sees no key is all zeros.
//! - **Accuracy.** At least 99.9 % of elements within ±1 of float64 attention on the same int8 tensors, rounded to int8
//!   (`attn validate` shows it; `docs/arithmetic.md` has the measurements behind each width).
//! - **Overflow.** None, for any input: [`bounds`] computes how far every intermediate reaches when the crate is compiled.
//! - **Errors.** Every wrong input of [`attend`], [`attend_tile`], [`Heads`], [`Parameters`] and the quantisers is a typed error
//!   with what was given and what is accepted; they never panic. The single steps, which are public for backends and
//!   their tests, state the ranges that they rely on.
#![no_std]
#![forbid(unsafe_code)]

mod arith;
pub mod block;
pub mod bounds;
mod error;
pub mod exp2;
mod heads;
mod mask;
pub mod output;
pub mod quantise;
pub mod requantise;
pub mod row;
pub mod scale;
mod sequence;
mod tile;
pub mod types;

pub use block::MAX_SCORE;
pub use error::{AttentionError, FloatError, MaskError, ParameterError, QuantiseError, Tensor};
pub use heads::{FloatHeads, Head, Heads};
pub use mask::Mask;
pub use output::Output;
pub use quantise::{quantise, quantise_heads, quantise_with};
pub use scale::{Parameters, Scales};
pub use sequence::{Inputs, attend, scratch_len};
pub use tile::attend_tile;

/// Keys of one block: the probabilities of a block share one reference.
///
/// Part of the specification: another size gives other bits. 64, so that a 64×64 tile is one block and one bit mask a
/// machine word.
pub const BLOCK: usize = 64;

/// Version of the arithmetic: it changes with every bit that an output can have.
pub const ARITHMETIC: u32 = 1;

/// Most keys of one attention, 2^20. The arithmetic itself has no limit; this is what is tested.
pub const MAX_KEYS: usize = 1 << 20;

/// Smallest head dimension.
pub const MIN_DIM: usize = 8;

/// Largest head dimension.
pub const MAX_DIM: usize = 256;

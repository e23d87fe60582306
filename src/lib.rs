//! Scaled dot-product attention in integers only: int8 in, int8 out, the same bits on every backend.
//!
//! The arithmetic is [`attn_fixed`]'s, re-exported here; [`backend`] chooses where it runs. With the feature `cli`
//! (default) come the parts of the `attn` command: [`npz`] reads and writes numpy archives, [`problem`] makes integers of
//! them, [`suite`] validates a backend against float64 attention, [`compare`] compares two outputs, [`mod@bench`] measures
//! speed beside that of others, [`report`] shows a validation
//! as a page, [`mod@file`] is what they write with. Dependents that want
//! attention alone leave it out with `default-features = false`, and embedders take the crate `attn-fixed` alone.
#![forbid(unsafe_code)]

pub mod backend;
#[cfg(feature = "cli")]
pub mod bench;
#[cfg(feature = "cli")]
pub mod compare;
#[cfg(feature = "cli")]
pub mod file;
#[cfg(feature = "cli")]
mod machine;
#[cfg(feature = "cli")]
pub mod mask;
#[cfg(feature = "cli")]
pub mod npz;
#[cfg(feature = "cli")]
pub mod problem;
#[cfg(feature = "cli")]
pub mod report;
#[cfg(feature = "cli")]
pub mod suite;
#[cfg(feature = "cli")]
mod table;
pub mod text;

pub use attn_fixed::{
    AttentionError, BLOCK, FloatError, FloatHeads, Head, Heads, Inputs, MAX_DIM, MAX_KEYS, MIN_DIM, Mask, MaskError,
    Output, ParameterError, Parameters, QuantiseError, Scales, Tensor, attend, attend_tile, quantise, quantise_heads,
    quantise_with, scratch_len,
};

/// The README's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

//! Integer attention with the kernels that the NPU's compiler sees, which give the bits of [`attn_fixed`].
//!
//! [`Attention`] runs them **on this CPU**, compiled by the host's compiler: it shows what they compute, not how fast an NPU
//! does. One thread.
//!
//! # The way of a head
//! | step | module |
//! |---|---|
//! | 64 keys and values, or up to 64 queries with their parameters, become an object | [`layout`] |
//! | a kernel attends the queries of one object, in one call or a block of keys at a time | [`kernel`] |
//! | the output object's rows become those of the head | `heads` |
//!
//! Beside it, [`design`] describes what the array of an NPU does, and [`xclbin`] reads the container that a design is built into.
//!
//! # What they take
//! Everything that [`attn_fixed::attend`] takes but boolean masks: a row sees a prefix of the keys, by a number of valid keys,
//! a causal rule, or both.

#[cfg(feature = "build")]
pub mod build;
pub mod design;
mod heads;
#[cfg(feature = "runtime")]
pub mod host;
pub mod kernel;
pub mod layout;
pub mod model;
#[cfg(feature = "runtime")]
pub mod runtime;
pub mod xclbin;

use std::{error::Error, fmt};

pub use heads::{Attention, check_masks};
pub use kernel::{Kernel, Unavailable};

use attn_fixed::AttentionError;

/// Why heads were not attended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NpuError {
    /// What is wrong with the tensors.
    Attention(AttentionError),
    /// A mask that the specification takes, and the kernels do not.
    Mask(UnsupportedMask),
}

/// A mask with a boolean part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsupportedMask {
    /// The first query head that has one.
    pub head: usize,
}

impl From<AttentionError> for NpuError {
    fn from(error: AttentionError) -> Self {
        Self::Attention(error)
    }
}

impl From<UnsupportedMask> for NpuError {
    fn from(error: UnsupportedMask) -> Self {
        Self::Mask(error)
    }
}

impl fmt::Display for NpuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attention(error) => error.fmt(f),
            Self::Mask(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for UnsupportedMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { head } = self;
        write!(
            f,
            "mask of head {head}: got a boolean mask, expected valid keys, causal, or both: the NPU's kernels take no other"
        )
    }
}

impl Error for NpuError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            // It is printed itself.
            Self::Attention(error) => error.source(),
            Self::Mask(_) => None,
        }
    }
}

impl Error for UnsupportedMask {}

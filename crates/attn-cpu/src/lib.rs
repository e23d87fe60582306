//! Integer attention on the CPU's vector instructions: the bits of [`attn_fixed`], on every input.
//!
//! [`Attention`] computes several heads at once on one [`Isa`], on as many threads as the rayon pool has that it is called
//! in. Keys and values are packed once per call and head; the memory for it is used again by the next call.
//!
//! # The way of a tile
//! | step | module |
//! |---|---|
//! | keys and values are laid out for the kernel | `pack` |
//! | 16 or 32 queries meet the keys, a block at a time | `kernel` |
//! | the instructions, behind one small trait | `simd`, `x86` |
//!
//! # Features
//! `std` (default): instruction sets are found when the program runs, threads. Without it the crate is `no_std` with
//! `alloc`, and knows the instruction sets that the program is compiled for.
#![no_std]
#![allow(
    clippy::inline_always,
    reason = "only what is inlined into a function that has the instructions is compiled with them"
)]
#![allow(clippy::needless_range_loop, reason = "a closure that is not inlined is not compiled with them either")]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod heads;
mod kernel;
mod pack;
mod row;
mod simd;
#[cfg(feature = "std")]
mod threads;
#[cfg(target_arch = "x86_64")]
mod x86;

use alloc::boxed::Box;
use core::{error::Error, fmt};

use attn_fixed::{AttentionError, FloatError, FloatHeads, Heads};

use crate::heads::Kernel;

#[cfg(feature = "std")]
pub use crate::threads::{MAX_THREADS, ThreadsError, start_threads};

/// A vector instruction set that there is a kernel for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Isa {
    /// AVX-512 F, BW and VNNI: 64 products an instruction.
    Avx512Vnni,
    /// AVX-512 F and BW: 32 products an instruction.
    Avx512Bw,
    /// AVX2 and AVX-VNNI: 32 products an instruction.
    AvxVnni,
    /// AVX2: 16 products an instruction.
    Avx2,
}

impl Isa {
    /// Every instruction set, the fastest first.
    pub const ALL: [Self; 4] = [Self::Avx512Vnni, Self::Avx512Bw, Self::AvxVnni, Self::Avx2];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Avx512Vnni => "avx512-vnni",
            Self::Avx512Bw => "avx512-bw",
            Self::AvxVnni => "avx-vnni",
            Self::Avx2 => "avx2",
        }
    }

    /// Whether this CPU has it.
    #[must_use]
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return x86::is_available(self);
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// The fastest one that this CPU has.
    #[must_use]
    pub fn best() -> Option<Self> {
        Self::ALL.into_iter().find(|isa| isa.is_available())
    }
}

/// Attention on one instruction set, with the memory that it uses from call to call.
pub struct Attention {
    isa: Isa,
    kernel: Box<dyn Kernel>,
}

impl Attention {
    /// Attention on this instruction set.
    ///
    /// # Errors
    /// The CPU does not have it.
    pub fn new(isa: Isa) -> Result<Self, Unavailable> {
        #[cfg(target_arch = "x86_64")]
        let kernel = x86::kernel(isa);
        #[cfg(not(target_arch = "x86_64"))]
        let kernel = None;
        kernel.map(|kernel| Self { isa, kernel }).ok_or(Unavailable(isa))
    }

    /// The instruction set.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Writes `out`, `[heads, queries, dim]`. `progress` is called with a number of queries that were done, from any thread.
    ///
    /// # Errors
    /// As [`Heads::check`]; `out` is then untouched.
    pub fn attend(
        &mut self,
        heads: Heads<'_>,
        out: &mut [i8],
        progress: &(dyn Fn(usize) + Sync),
    ) -> Result<(), AttentionError> {
        heads.check(out.len())?;
        self.kernel.attend(heads, out, progress);
        Ok(())
    }

    /// Quantises, attends in integers, and writes `out`, `[heads, queries, dim]`, in floats. `progress` as above.
    ///
    /// # Errors
    /// As [`FloatHeads::check`]; floats that are not finite; scales that [`Parameters::new`](attn_fixed::Parameters::new)
    /// refuses. `out` is then untouched.
    pub fn attend_f32(
        &mut self,
        heads: FloatHeads<'_>,
        out: &mut [f32],
        progress: &(dyn Fn(usize) + Sync),
    ) -> Result<(), FloatError> {
        heads.check(out.len())?;
        self.kernel.attend_f32(heads, out, progress)
    }
}

/// Runs a loop of nothing but the instruction that an instruction set multiplies with (`vpdpbusd` or `vpmaddwd`), for about
/// a twentieth of a millisecond, and returns the multiply-accumulates that it did: the limit of any attention on it.
///
/// # Errors
/// The CPU does not have it.
pub fn peak(isa: Isa) -> Result<u64, Unavailable> {
    #[cfg(target_arch = "x86_64")]
    let macs = x86::peak(isa);
    #[cfg(not(target_arch = "x86_64"))]
    let macs = None;
    macs.ok_or(Unavailable(isa))
}

/// An instruction set that the CPU does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable(pub Isa);

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: this CPU does not have it; it has ", self.0.name())?;
        let mut available = Isa::ALL.into_iter().filter(|isa| isa.is_available());
        match available.next() {
            None => f.write_str("none of the others either"),
            Some(first) => {
                f.write_str(first.name())?;
                available.try_for_each(|isa| write!(f, ", {}", isa.name()))
            }
        }
    }
}

impl Error for Unavailable {}

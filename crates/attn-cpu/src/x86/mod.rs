//! The instruction sets of x86-64: which of them there are, and the algorithm compiled for each.
//!
//! The only unsafe code of the crate: instructions that not every CPU has. A value of one of the types here proves that the
//! CPU has those of its kind.
#![allow(unsafe_code, reason = "see above")]
#![allow(clippy::wildcard_imports, reason = "instructions have names of their own")]

/// Methods of one instruction or a few that need nothing but the CPU's features.
macro_rules! instructions {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty = $body:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($argument: $type),*) -> $result {
            // SAFETY: `self` proves that the CPU has the instructions.
            unsafe { $body }
        }
    )*};
}

mod avx2;
mod avx512;
#[cfg(miri)]
mod miri;
mod peak;

use alloc::boxed::Box;

use attn_fixed::{Head, QuantiseError, quantise};

use crate::{
    Isa,
    heads::{Kernel, Workspace, attend_queries},
    kernel::{Element, Group},
    pack::Packed,
    row,
    simd::{Compiled, Simd},
};
use avx2::{Avx2, AvxVnni};
use avx512::{Avx512Bw, Avx512Vnni};

/// Whether the CPU, or without `std` every CPU that this is compiled for, has a feature.
macro_rules! has {
    ($($feature:tt),*) => {{
        #[cfg(feature = "std")]
        let has = true $(&& std::is_x86_feature_detected!($feature))*;
        #[cfg(not(feature = "std"))]
        let has = true $(&& cfg!(target_feature = $feature))*;
        has
    }};
}

/// A proof for each instruction set, and the algorithm compiled for it.
macro_rules! compiled {
    ($($simd:ident($features:literal: $($feature:tt),*);)*) => {$(
        impl $simd {
            fn new() -> Option<Self> {
                has!($($feature),*).then_some(Self(()))
            }
        }

        impl Compiled for $simd {
            fn pack(self, packed: &mut Packed<Self::V>, key: &[i8], value: &[i8], dim: usize) {
                #[target_feature(enable = $features)]
                fn pack(s: $simd, packed: &mut Packed<<$simd as Simd>::V>, key: &[i8], value: &[i8], dim: usize) {
                    packed.pack(s, key, value, dim);
                }
                // SAFETY: `self` proves that the CPU has these features.
                unsafe { pack(self, packed, key, value, dim) }
            }

            fn largest(self, values: &[f32]) -> Result<f32, QuantiseError> {
                #[target_feature(enable = $features)]
                fn largest(values: &[f32]) -> Result<f32, QuantiseError> {
                    quantise::largest(values)
                }
                // SAFETY: `self` proves that the CPU has these features.
                unsafe { largest(values) }
            }

            fn fill(self, values: &[f32], scale: f32, quantised: &mut [i8]) {
                #[target_feature(enable = $features)]
                fn fill(values: &[f32], scale: f32, quantised: &mut [i8]) {
                    quantise::fill(values, scale, quantised);
                }
                // SAFETY: `self` proves that the CPU has these features.
                unsafe { fill(values, scale, quantised) }
            }

            fn attend_rows<E: Element>(self, head: Head<'_>, out: &mut [E]) {
                #[target_feature(enable = $features)]
                fn attend_rows<E: Element>(s: $simd, head: Head<'_>, out: &mut [E]) {
                    row::attend_rows(s, head, out);
                }
                // SAFETY: `self` proves that the CPU has these features.
                unsafe { attend_rows(self, head, out) }
            }

            fn attend<E: Element>(
                self,
                packed: &Packed<Self::V>,
                groups: &mut [Group<Self::V>; 2],
                head: Head<'_>,
                first: usize,
                out: &mut [E],
            ) {
                #[target_feature(enable = $features)]
                fn attend<E: Element>(
                    s: $simd,
                    packed: &Packed<<$simd as Simd>::V>,
                    groups: &mut [Group<<$simd as Simd>::V>; 2],
                    head: Head<'_>,
                    first: usize,
                    out: &mut [E],
                ) {
                    attend_queries(s, packed, groups, head, first, out);
                }
                // SAFETY: `self` proves that the CPU has these features.
                unsafe { attend(self, packed, groups, head, first, out) }
            }
        }
    )*};
}

compiled! {
    Avx512Vnni("avx512f,avx512bw,avx512vnni": "avx512f", "avx512bw", "avx512vnni");
    Avx512Bw("avx512f,avx512bw": "avx512f", "avx512bw");
    AvxVnni("avx2,avxvnni": "avx2", "avxvnni");
    Avx2("avx2": "avx2");
}

pub(crate) fn is_available(isa: Isa) -> bool {
    match isa {
        Isa::Avx512Vnni => Avx512Vnni::new().is_some(),
        Isa::Avx512Bw => Avx512Bw::new().is_some(),
        Isa::AvxVnni => AvxVnni::new().is_some(),
        Isa::Avx2 => Avx2::new().is_some(),
    }
}

/// [`crate::peak`], where the CPU has the instruction set.
pub(crate) fn peak(isa: Isa) -> Option<u64> {
    match isa {
        Isa::Avx512Vnni => Avx512Vnni::new().map(peak::avx512_vnni),
        Isa::Avx512Bw => Avx512Bw::new().map(peak::avx512_bw),
        Isa::AvxVnni => AvxVnni::new().map(peak::avx_vnni),
        Isa::Avx2 => Avx2::new().map(peak::avx2),
    }
}

/// The kernel of an instruction set, where the CPU has it.
pub(crate) fn kernel(isa: Isa) -> Option<Box<dyn Kernel>> {
    fn boxed<S: Compiled>(simd: S) -> Box<dyn Kernel> {
        Box::new(Workspace::new(simd))
    }
    match isa {
        Isa::Avx512Vnni => Avx512Vnni::new().map(boxed),
        Isa::Avx512Bw => Avx512Bw::new().map(boxed),
        Isa::AvxVnni => AvxVnni::new().map(boxed),
        Isa::Avx2 => Avx2::new().map(boxed),
    }
}

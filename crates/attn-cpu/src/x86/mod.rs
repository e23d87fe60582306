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

use attn_fixed::{Head, Heads};

use crate::{
    Attention, Isa,
    heads::{self, Compiled, attend_queries},
    kernel::Group,
    pack::Packed,
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

            fn compiled() -> Option<Compiled<Self>> {
                Some(Compiled { simd: Self::new()?, pack: Self::pack, attend: Self::attend })
            }

            fn pack(self, packed: &mut Packed, key: &[i8], value: &[i8], dim: usize) {
                #[target_feature(enable = $features)]
                fn pack(packed: &mut Packed, key: &[i8], value: &[i8], dim: usize) {
                    packed.pack::<$simd>(key, value, dim);
                }
                // SAFETY: `self` proves that the CPU has these features.
                unsafe { pack(packed, key, value, dim) }
            }

            fn attend(self, packed: &Packed, groups: &mut [Group; 2], head: Head<'_>, first: usize, out: &mut [i8]) {
                #[target_feature(enable = $features)]
                fn attend(
                    s: $simd,
                    packed: &Packed,
                    groups: &mut [Group; 2],
                    head: Head<'_>,
                    first: usize,
                    out: &mut [i8],
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

/// Attention over heads that are checked, on an instruction set that is available.
pub(crate) fn attend(attention: &mut Attention, heads: Heads<'_>, out: &mut [i8], progress: &(dyn Fn(usize) + Sync)) {
    match attention.isa {
        Isa::Avx512Vnni => heads::attend(&Avx512Vnni::compiled().expect("available"), attention, heads, out, progress),
        Isa::Avx512Bw => heads::attend(&Avx512Bw::compiled().expect("available"), attention, heads, out, progress),
        Isa::AvxVnni => heads::attend(&AvxVnni::compiled().expect("available"), attention, heads, out, progress),
        Isa::Avx2 => heads::attend(&Avx2::compiled().expect("available"), attention, heads, out, progress),
    }
}

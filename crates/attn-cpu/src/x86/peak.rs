//! Loops of nothing but the instruction that multiplies: what an instruction set can do at most.

use core::arch::asm;

use super::{Avx2, Avx512Bw, Avx512Vnni, AvxVnni};

/// Rounds of a loop, 12 instructions each.
const ROUNDS: u64 = 1 << 14;

/// Twelve instructions, each with a register of its own, so that none waits for another.
macro_rules! twelve {
    ($instruction:literal, $register:literal) => {
        twelve!($instruction, $register, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)
    };
    ($instruction:literal, $register:literal, $($to:literal),*) => {
        concat!($($instruction, " ", $register, $to, ", ", $register, 12, ", ", $register, 13, "\n"),*)
    };
}

/// A loop over an instruction, which does so many multiply-accumulates.
macro_rules! peak {
    ($($name:ident($simd:ty), $features:literal, $instruction:literal, $register:literal, $macs:literal;)*) => {$(
        pub(super) fn $name(_: $simd) -> u64 {
            #[target_feature(enable = $features)]
            fn run() {
                // SAFETY: registers alone, and all of them are named.
                unsafe {
                    asm!(
                        "2:",
                        twelve!($instruction, $register),
                        "dec {rounds}",
                        "jnz 2b",
                        rounds = inout(reg) ROUNDS => _,
                        out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
                        out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                        options(nomem, nostack),
                    );
                }
            }
            // SAFETY: the argument proves that the CPU has these features.
            unsafe { run() };
            12 * ROUNDS * $macs
        }
    )*};
}

peak! {
    avx512_vnni(Avx512Vnni), "avx512f,avx512vnni", "vpdpbusd", "zmm", 64;
    avx512_bw(Avx512Bw), "avx512f,avx512bw", "vpmaddwd", "zmm", 32;
    avx_vnni(AvxVnni), "avx2,avxvnni", "{{vex}} vpdpbusd", "ymm", 32;
    avx2(Avx2), "avx2", "vpmaddwd", "ymm", 16;
}

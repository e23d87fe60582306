//! AVX-512: 16 rows.

use core::arch::{asm, x86_64::*};

#[cfg(miri)]
use super::miri::{
    _mm512_max_ps, _mm512_min_ps, _mm512_mulhrs_epi16, _mm512_sll_epi16, _mm512_sll_epi32, _mm512_srl_epi32,
};
use crate::simd::{MAX_ROWS, Simd};

/// The CPU has AVX-512 F, BW and VNNI.
#[derive(Clone, Copy)]
pub(super) struct Avx512Vnni(pub(super) ());

/// The CPU has AVX-512 F and BW.
#[derive(Clone, Copy)]
pub(super) struct Avx512Bw(pub(super) ());

/// What both have.
macro_rules! avx512 {
    () => {
        type V = __m512i;

        const ROWS: usize = 16;
        const MANY_REGISTERS: bool = true;

        #[inline(always)]
        fn load(self, from: &[i32; MAX_ROWS]) -> __m512i {
            // SAFETY: at least 64 bytes of an array; the CPU has the instruction, as `self` proves.
            unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
        }

        #[inline(always)]
        fn store(self, v: __m512i, to: &mut [i32; MAX_ROWS]) {
            // SAFETY: as above.
            unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), v) }
        }

        #[inline(always)]
        fn store_bytes(self, v: __m512i, to: &mut [i8]) {
            let to: &mut [i8; 64] = to.first_chunk_mut().expect("a vector");
            // SAFETY: 64 bytes of an array; the CPU has the instruction, as `self` proves.
            unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), v) }
        }

        #[inline(always)]
        fn store_floats(self, v: __m512i, to: &mut [f32]) {
            let to: &mut [f32; 16] = to.first_chunk_mut().expect("a vector");
            // SAFETY: 64 bytes of an array; the CPU has the instruction, as `self` proves.
            unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), v) }
        }

        #[inline(always)]
        fn broadcast(self, v: &__m512i, lane: usize) -> __m512i {
            assert!(lane < Self::ROWS);
            // SAFETY: a lane of the vector; any bits are an i32.
            self.splat(unsafe { *core::ptr::from_ref(v).cast::<i32>().add(lane) })
        }

        #[inline(always)]
        fn transpose(self, square: &mut [__m512i; MAX_ROWS]) {
            // SAFETY: `self` proves that the CPU has the instructions.
            unsafe { transpose(square) }
        }

        instructions! {
            splat(x: i32) -> __m512i = _mm512_set1_epi32(x);
            splat16(x: i16) -> __m512i = _mm512_set1_epi16(x);
            add(a: __m512i, b: __m512i) -> __m512i = _mm512_add_epi32(a, b);
            sub(a: __m512i, b: __m512i) -> __m512i = _mm512_sub_epi32(a, b);
            mul(a: __m512i, b: __m512i) -> __m512i = _mm512_mullo_epi32(a, b);
            min(a: __m512i, b: __m512i) -> __m512i = _mm512_min_epi32(a, b);
            max(a: __m512i, b: __m512i) -> __m512i = _mm512_max_epi32(a, b);
            and(a: __m512i, b: __m512i) -> __m512i = _mm512_and_si512(a, b);
            or(a: __m512i, b: __m512i) -> __m512i = _mm512_or_si512(a, b);
            xor(a: __m512i, b: __m512i) -> __m512i = _mm512_xor_si512(a, b);
            shr(a: __m512i, count: u32) -> __m512i = _mm512_srl_epi32(a, _mm_cvtsi32_si128(count as i32));
            shl(a: __m512i, count: u32) -> __m512i = _mm512_sll_epi32(a, _mm_cvtsi32_si128(count as i32));
            shlv(a: __m512i, counts: __m512i) -> __m512i = _mm512_sllv_epi32(a, counts);
            sarv(a: __m512i, counts: __m512i) -> __m512i = _mm512_srav_epi32(a, counts);
            gt(a: __m512i, b: __m512i) -> __m512i = _mm512_maskz_set1_epi32(_mm512_cmpgt_epi32_mask(a, b), -1);
            eq(a: __m512i, b: __m512i) -> __m512i = _mm512_maskz_set1_epi32(_mm512_cmpeq_epi32_mask(a, b), -1);
            select(mask: __m512i, a: __m512i, b: __m512i) -> __m512i = _mm512_ternarylogic_epi32::<0xca>(mask, a, b);
            signs(a: __m512i) -> u32 = _mm512_cmplt_epi32_mask(a, _mm512_setzero_si512()).into();
            pack_u32(a: __m512i, b: __m512i) -> __m512i = _mm512_packus_epi32(a, b);
            pack_mask(a: __m512i, b: __m512i) -> __m512i = _mm512_packs_epi32(a, b);
            add16(a: __m512i, b: __m512i) -> __m512i = _mm512_add_epi16(a, b);
            sub16(a: __m512i, b: __m512i) -> __m512i = _mm512_sub_epi16(a, b);
            mulhi_u16(a: __m512i, b: __m512i) -> __m512i = multiply_high(a, b);
            mulhrs(a: __m512i, b: __m512i) -> __m512i = _mm512_mulhrs_epi16(a, b);
            shl16(a: __m512i, count: u32) -> __m512i = _mm512_sll_epi16(a, _mm_cvtsi32_si128(count as i32));
            shr_octaves(a: __m512i, octaves: __m512i) -> __m512i = shift_right(a, _mm512_srli_epi16::<11>(octaves));
            gt16(a: __m512i, b: __m512i) -> __m512i = _mm512_maskz_set1_epi16(_mm512_cmpgt_epi16_mask(a, b), -1);
            sum_pairs(a: __m512i) -> __m512i = {
                let zero = _mm512_setzero_si512();
                _mm512_add_epi32(_mm512_unpacklo_epi16(a, zero), _mm512_unpackhi_epi16(a, zero))
            };
            floats(a: __m512i) -> __m512i = _mm512_castps_si512(_mm512_cvtepi32_ps(a));
            mul_floats(a: __m512i, b: __m512i) -> __m512i =
                _mm512_castps_si512(_mm512_mul_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b)));
            finite(a: __m512i) -> __m512i = {
                let most = _mm512_min_ps(_mm512_castsi512_ps(a), _mm512_set1_ps(f32::MAX));
                _mm512_castps_si512(_mm512_max_ps(most, _mm512_set1_ps(f32::MIN)))
            };
            pack_i8(columns: [__m512i; 4]) -> __m512i = {
                let [a, b, c, d] = columns;
                let words = (_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
                _mm512_shuffle_epi8(_mm512_packs_epi16(words.0, words.1), _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)))
            };
            pack_bytes(a: __m512i, b: __m512i) -> __m512i = {
                // Four keys of four rows become four rows of four keys.
                let transpose = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
                _mm512_shuffle_epi8(_mm512_packus_epi16(a, b), _mm512_broadcast_i32x4(transpose))
            };
        }
    };
}

impl Simd for Avx512Vnni {
    const DEPTH: usize = 4;
    const BIAS: i32 = 128;

    avx512!();

    #[inline(always)]
    fn store_probabilities(self, a: __m512i, b: __m512i, to: &mut [__m512i]) {
        to[0] = self.pack_bytes(a, b);
    }

    #[inline(always)]
    fn elements(self, from: &[i8]) -> __m512i {
        let from: &[i8; 64] = from.first_chunk().expect("a vector");
        // SAFETY: 64 bytes of an array; the CPU has the instruction, as `self` proves.
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }

    instructions! {
        dot(sums: __m512i, a: __m512i, b: __m512i) -> __m512i = _mm512_dpbusd_epi32(sums, a, b);
    }
}

impl Simd for Avx512Bw {
    const DEPTH: usize = 2;
    const BIAS: i32 = 0;

    avx512!();

    #[inline(always)]
    fn store_probabilities(self, a: __m512i, b: __m512i, to: &mut [__m512i]) {
        to[0] = self.interleave(a);
        to[1] = self.interleave(b);
    }

    #[inline(always)]
    fn elements(self, from: &[i8]) -> __m512i {
        let from: &[i8; 32] = from.first_chunk().expect("half a vector");
        // SAFETY: 32 bytes of an array; the CPU has the instructions, as `self` proves.
        unsafe { _mm512_cvtepi8_epi16(_mm256_loadu_si256(from.as_ptr().cast())) }
    }

    instructions! {
        dot(sums: __m512i, a: __m512i, b: __m512i) -> __m512i = _mm512_add_epi32(sums, _mm512_madd_epi16(a, b));
    }
}

impl Avx512Bw {
    /// Two keys of four rows become four rows of two keys.
    #[inline(always)]
    #[expect(clippy::unused_self, reason = "the proof")]
    fn interleave(self, a: __m512i) -> __m512i {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe {
            let order = _mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15);
            _mm512_shuffle_epi8(a, _mm512_broadcast_i32x4(order))
        }
    }
}

/// The high halves of unsigned 16-bit products.
///
/// The compiler takes its own intrinsic apart, into three times as many instructions.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn multiply_high(a: __m512i, b: __m512i) -> __m512i {
    if cfg!(miri) {
        return _mm512_mulhi_epu16(a, b);
    }
    let high;
    // SAFETY: registers alone.
    unsafe {
        asm!("vpmulhuw {}, {}, {}", lateout(zmm_reg) high, in(zmm_reg) a, in(zmm_reg) b, options(pure, nomem, nostack, preserves_flags));
    }
    high
}

/// 16-bit lanes shifted right, zeros from 16 on, for the same reason.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn shift_right(a: __m512i, counts: __m512i) -> __m512i {
    if cfg!(miri) {
        return _mm512_srlv_epi16(a, counts);
    }
    let shifted;
    // SAFETY: registers alone.
    unsafe {
        asm!("vpsrlvw {}, {}, {}", lateout(zmm_reg) shifted, in(zmm_reg) a, in(zmm_reg) counts, options(pure, nomem, nostack, preserves_flags));
    }
    shifted
}

/// 16 vectors of 16 lanes.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(square: &mut [__m512i; 16]) {
    // Squares of 4 lanes by 4 within 128 bits, then squares of 4 such by 4.
    for v in square.as_chunks_mut::<4>().0 {
        let (a, b) = (_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
        let (c, d) = (_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
        *v = [
            _mm512_unpacklo_epi64(a, c),
            _mm512_unpackhi_epi64(a, c),
            _mm512_unpacklo_epi64(b, d),
            _mm512_unpackhi_epi64(b, d),
        ];
    }
    for i in 0..4 {
        let (a, b, c, d) = (square[i], square[i + 4], square[i + 8], square[i + 12]);
        let (ab, cd) = (_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0x44>(c, d));
        let (ab_high, cd_high) = (_mm512_shuffle_i32x4::<0xee>(a, b), _mm512_shuffle_i32x4::<0xee>(c, d));
        square[i] = _mm512_shuffle_i32x4::<0x88>(ab, cd);
        square[i + 4] = _mm512_shuffle_i32x4::<0xdd>(ab, cd);
        square[i + 8] = _mm512_shuffle_i32x4::<0x88>(ab_high, cd_high);
        square[i + 12] = _mm512_shuffle_i32x4::<0xdd>(ab_high, cd_high);
    }
}

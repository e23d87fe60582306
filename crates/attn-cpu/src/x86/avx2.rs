//! 256 bits: 8 rows.

use core::arch::{asm, x86_64::*};

use crate::simd::{MAX_ROWS, Simd};

/// The CPU has AVX2 and AVX-VNNI.
#[derive(Clone, Copy)]
pub(super) struct AvxVnni(pub(super) ());

/// The CPU has AVX2.
#[derive(Clone, Copy)]
pub(super) struct Avx2(pub(super) ());

/// What both have.
macro_rules! avx2 {
    () => {
        type V = __m256i;

        const ROWS: usize = 8;
        const MANY_REGISTERS: bool = false;

        #[inline(always)]
        fn load(self, from: &[i32; MAX_ROWS]) -> __m256i {
            // SAFETY: at least 32 bytes of an array; the CPU has the instruction, as `self` proves.
            unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
        }

        #[inline(always)]
        fn store(self, v: __m256i, to: &mut [i32; MAX_ROWS]) {
            // SAFETY: as above.
            unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), v) }
        }

        #[inline(always)]
        fn store_bytes(self, v: __m256i, to: &mut [i8]) {
            let to: &mut [i8; 32] = to.first_chunk_mut().expect("a vector");
            // SAFETY: 32 bytes of an array; the CPU has the instruction, as `self` proves.
            unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), v) }
        }

        #[inline(always)]
        fn store_floats(self, v: __m256i, to: &mut [f32]) {
            let to: &mut [f32; 8] = to.first_chunk_mut().expect("a vector");
            // SAFETY: 32 bytes of an array; the CPU has the instruction, as `self` proves.
            unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), v) }
        }

        #[inline(always)]
        fn broadcast(self, v: &__m256i, lane: usize) -> __m256i {
            assert!(lane < Self::ROWS);
            // SAFETY: a lane of the vector; any bits are an i32.
            self.splat(unsafe { *core::ptr::from_ref(v).cast::<i32>().add(lane) })
        }

        #[inline(always)]
        fn transpose(self, square: &mut [__m256i; MAX_ROWS]) {
            // SAFETY: `self` proves that the CPU has the instructions.
            unsafe { transpose(square) }
        }

        instructions! {
            splat(x: i32) -> __m256i = _mm256_set1_epi32(x);
            splat16(x: i16) -> __m256i = _mm256_set1_epi16(x);
            add(a: __m256i, b: __m256i) -> __m256i = _mm256_add_epi32(a, b);
            sub(a: __m256i, b: __m256i) -> __m256i = _mm256_sub_epi32(a, b);
            mul(a: __m256i, b: __m256i) -> __m256i = _mm256_mullo_epi32(a, b);
            min(a: __m256i, b: __m256i) -> __m256i = _mm256_min_epi32(a, b);
            max(a: __m256i, b: __m256i) -> __m256i = _mm256_max_epi32(a, b);
            and(a: __m256i, b: __m256i) -> __m256i = _mm256_and_si256(a, b);
            or(a: __m256i, b: __m256i) -> __m256i = _mm256_or_si256(a, b);
            xor(a: __m256i, b: __m256i) -> __m256i = _mm256_xor_si256(a, b);
            shr(a: __m256i, count: u32) -> __m256i = _mm256_srl_epi32(a, _mm_cvtsi32_si128(count as i32));
            shl(a: __m256i, count: u32) -> __m256i = _mm256_sll_epi32(a, _mm_cvtsi32_si128(count as i32));
            shlv(a: __m256i, counts: __m256i) -> __m256i = _mm256_sllv_epi32(a, counts);
            sarv(a: __m256i, counts: __m256i) -> __m256i = _mm256_srav_epi32(a, counts);
            gt(a: __m256i, b: __m256i) -> __m256i = _mm256_cmpgt_epi32(a, b);
            eq(a: __m256i, b: __m256i) -> __m256i = _mm256_cmpeq_epi32(a, b);
            select(mask: __m256i, a: __m256i, b: __m256i) -> __m256i = _mm256_blendv_epi8(b, a, mask);
            signs(a: __m256i) -> u32 = _mm256_movemask_ps(_mm256_castsi256_ps(a)) as u32;
            pack_u32(a: __m256i, b: __m256i) -> __m256i = _mm256_packus_epi32(a, b);
            pack_mask(a: __m256i, b: __m256i) -> __m256i = _mm256_packs_epi32(a, b);
            add16(a: __m256i, b: __m256i) -> __m256i = _mm256_add_epi16(a, b);
            sub16(a: __m256i, b: __m256i) -> __m256i = _mm256_sub_epi16(a, b);
            mulhi_u16(a: __m256i, b: __m256i) -> __m256i = multiply_high(a, b);
            mulhrs(a: __m256i, b: __m256i) -> __m256i = _mm256_mulhrs_epi16(a, b);
            shl16(a: __m256i, count: u32) -> __m256i = _mm256_sll_epi16(a, _mm_cvtsi32_si128(count as i32));
            shr_octaves(a: __m256i, octaves: __m256i) -> __m256i = {
                // There is no such instruction: x >> n is the high half of 2x · 2^(15-n), and a table has the powers of two. In
                // the low byte of a lane it is asked for n, in the high byte for n + 8, which is 0 to 7 again from 16 on.
                let power = _mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, -128, 64, 32, 16, 8, 4, 2, 1);
                let octaves = _mm256_min_epu16(octaves, _mm256_set1_epi16(i16::MAX));
                // Times 2^-11 and 2^-3: n in both bytes.
                let octaves = _mm256_and_si256(octaves, _mm256_set1_epi16(0x7800));
                let place = multiply_high(octaves, _mm256_set1_epi16(0x2020));
                let place = _mm256_add_epi8(place, _mm256_set1_epi16(0x0800));
                let powers = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(power), place);
                multiply_high(_mm256_slli_epi16::<1>(a), powers)
            };
            gt16(a: __m256i, b: __m256i) -> __m256i = _mm256_cmpgt_epi16(a, b);
            sum_pairs(a: __m256i) -> __m256i = {
                let zero = _mm256_setzero_si256();
                _mm256_add_epi32(_mm256_unpacklo_epi16(a, zero), _mm256_unpackhi_epi16(a, zero))
            };
            floats(a: __m256i) -> __m256i = _mm256_castps_si256(_mm256_cvtepi32_ps(a));
            mul_floats(a: __m256i, b: __m256i) -> __m256i =
                _mm256_castps_si256(_mm256_mul_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b)));
            finite(a: __m256i) -> __m256i = {
                let most = _mm256_min_ps(_mm256_castsi256_ps(a), _mm256_set1_ps(f32::MAX));
                _mm256_castps_si256(_mm256_max_ps(most, _mm256_set1_ps(f32::MIN)))
            };
            pack_i8(columns: [__m256i; 4]) -> __m256i = {
                let [a, b, c, d] = columns;
                let words = (_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
                _mm256_shuffle_epi8(_mm256_packs_epi16(words.0, words.1), _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)))
            };
            pack_bytes(a: __m256i, b: __m256i) -> __m256i = {
                // Four keys of four rows become four rows of four keys.
                let transpose = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
                _mm256_shuffle_epi8(_mm256_packus_epi16(a, b), _mm256_broadcastsi128_si256(transpose))
            };
        }
    };
}

impl Simd for AvxVnni {
    const DEPTH: usize = 4;
    const BIAS: i32 = 128;

    avx2!();

    #[inline(always)]
    fn store_probabilities(self, a: __m256i, b: __m256i, to: &mut [__m256i]) {
        to[0] = self.pack_bytes(a, b);
    }

    #[inline(always)]
    fn elements(self, from: &[i8]) -> __m256i {
        let from: &[i8; 32] = from.first_chunk().expect("a vector");
        // SAFETY: 32 bytes of an array; the CPU has the instruction, as `self` proves.
        unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
    }

    instructions! {
        dot(sums: __m256i, a: __m256i, b: __m256i) -> __m256i = _mm256_dpbusd_avx_epi32(sums, a, b);
    }
}

impl Simd for Avx2 {
    const DEPTH: usize = 2;
    const BIAS: i32 = 0;

    avx2!();

    #[inline(always)]
    fn store_probabilities(self, a: __m256i, b: __m256i, to: &mut [__m256i]) {
        to[0] = self.interleave(a);
        to[1] = self.interleave(b);
    }

    #[inline(always)]
    fn elements(self, from: &[i8]) -> __m256i {
        let from: &[i8; 16] = from.first_chunk().expect("half a vector");
        // SAFETY: 16 bytes of an array; the CPU has the instructions, as `self` proves.
        unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(from.as_ptr().cast())) }
    }

    instructions! {
        dot(sums: __m256i, a: __m256i, b: __m256i) -> __m256i = _mm256_add_epi32(sums, _mm256_madd_epi16(a, b));
    }
}

impl Avx2 {
    /// Two keys of four rows become four rows of two keys.
    #[inline(always)]
    #[expect(clippy::unused_self, reason = "the proof")]
    fn interleave(self, a: __m256i) -> __m256i {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe {
            let order = _mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15);
            _mm256_shuffle_epi8(a, _mm256_broadcastsi128_si256(order))
        }
    }
}

/// The high halves of unsigned 16-bit products.
///
/// The compiler takes its own intrinsic apart, into three times as many instructions.
#[inline]
#[target_feature(enable = "avx2")]
fn multiply_high(a: __m256i, b: __m256i) -> __m256i {
    if cfg!(miri) {
        return _mm256_mulhi_epu16(a, b);
    }
    let high;
    // SAFETY: registers alone.
    unsafe {
        asm!("vpmulhuw {}, {}, {}", lateout(ymm_reg) high, in(ymm_reg) a, in(ymm_reg) b, options(pure, nomem, nostack, preserves_flags));
    }
    high
}

/// The first 8 vectors of 8 lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose(square: &mut [__m256i; 16]) {
    // Squares of 4 lanes by 4 within 128 bits, then squares of 2 such by 2.
    for v in square[..8].as_chunks_mut::<4>().0 {
        let (a, b) = (_mm256_unpacklo_epi32(v[0], v[1]), _mm256_unpackhi_epi32(v[0], v[1]));
        let (c, d) = (_mm256_unpacklo_epi32(v[2], v[3]), _mm256_unpackhi_epi32(v[2], v[3]));
        *v = [
            _mm256_unpacklo_epi64(a, c),
            _mm256_unpackhi_epi64(a, c),
            _mm256_unpacklo_epi64(b, d),
            _mm256_unpackhi_epi64(b, d),
        ];
    }
    for i in 0..4 {
        let (a, b) = (square[i], square[i + 4]);
        square[i] = _mm256_permute2x128_si256::<0x20>(a, b);
        square[i + 4] = _mm256_permute2x128_si256::<0x31>(a, b);
    }
}

//! AVX-512: 16 rows.

use core::arch::x86_64::*;

use crate::simd::Simd;

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
        const GROUPS: usize = 2;

        #[inline(always)]
        fn load(self, from: &[i32]) -> __m512i {
            let from: &[i32; 16] = from.first_chunk().expect("a vector");
            // SAFETY: 64 bytes of an array; the CPU has the instruction, as `self` proves.
            unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
        }

        #[inline(always)]
        fn store(self, v: __m512i, to: &mut [i32]) {
            let to: &mut [i32; 16] = to.first_chunk_mut().expect("a vector");
            // SAFETY: as above.
            unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), v) }
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
            shr(a: __m512i, count: u32) -> __m512i = _mm512_srl_epi32(a, _mm_cvtsi32_si128(count as i32));
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
            mulhi_u16(a: __m512i, b: __m512i) -> __m512i = _mm512_mulhi_epu16(a, b);
            mullo16(a: __m512i, b: __m512i) -> __m512i = _mm512_mullo_epi16(a, b);
            mulhrs(a: __m512i, b: __m512i) -> __m512i = _mm512_mulhrs_epi16(a, b);
            shr16(a: __m512i, count: u32) -> __m512i = _mm512_srl_epi16(a, _mm_cvtsi32_si128(count as i32));
            shl16(a: __m512i, count: u32) -> __m512i = _mm512_sll_epi16(a, _mm_cvtsi32_si128(count as i32));
            shrv16(a: __m512i, counts: __m512i) -> __m512i = _mm512_srlv_epi16(a, counts);
            gt16(a: __m512i, b: __m512i) -> __m512i = _mm512_maskz_set1_epi16(_mm512_cmpgt_epi16_mask(a, b), -1);
            eq16(a: __m512i, b: __m512i) -> __m512i = _mm512_maskz_set1_epi16(_mm512_cmpeq_epi16_mask(a, b), -1);
            sum_pairs(a: __m512i) -> __m512i = {
                let zero = _mm512_setzero_si512();
                _mm512_add_epi32(_mm512_unpacklo_epi16(a, zero), _mm512_unpackhi_epi16(a, zero))
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
    fn store_probabilities(self, a: __m512i, b: __m512i, to: &mut [i32]) {
        self.store(self.pack_bytes(a, b), to);
    }

    #[inline(always)]
    fn sum_probabilities(self, sums: __m512i, from: &[i32]) -> __m512i {
        self.dot_lanes(sums, self.load(from), self.splat16(0x0101))
    }

    instructions! {
        dot_lanes(sums: __m512i, a: __m512i, b: __m512i) -> __m512i = _mm512_dpbusd_epi32(sums, a, b);
    }
}

impl Simd for Avx512Bw {
    const DEPTH: usize = 2;
    const BIAS: i32 = 0;

    avx512!();

    #[inline(always)]
    fn store_probabilities(self, a: __m512i, b: __m512i, to: &mut [i32]) {
        self.store(self.interleave(a), to);
        self.store(self.interleave(b), &mut to[Self::ROWS..]);
    }

    #[inline(always)]
    fn sum_probabilities(self, sums: __m512i, from: &[i32]) -> __m512i {
        let both = self.add16(self.load(from), self.load(&from[Self::ROWS..]));
        self.dot_lanes(sums, both, self.splat16(1))
    }

    instructions! {
        dot_lanes(sums: __m512i, a: __m512i, b: __m512i) -> __m512i = _mm512_add_epi32(sums, _mm512_madd_epi16(a, b));
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

//! Instructions of 512 bits that Miri does not know, from those of 256 bits, which it knows: by the names of theirs, as a module
//! that uses these has them in place of theirs.

use core::arch::x86_64::{
    __m128i, __m256i, __m512, __m512i, _mm256_castps_si256, _mm256_castsi256_ps, _mm256_max_ps, _mm256_min_ps,
    _mm256_mulhrs_epi16, _mm256_sll_epi16, _mm256_sll_epi32, _mm256_srl_epi32, _mm512_castps_si512,
    _mm512_castsi256_si512, _mm512_castsi512_ps, _mm512_castsi512_si256, _mm512_extracti64x4_epi64, _mm512_inserti64x4,
};

/// The lower halves, then the upper ones.
#[target_feature(enable = "avx512f")]
fn halves(a: __m512i, b: __m512i, of: impl Fn(__m256i, __m256i) -> __m256i) -> __m512i {
    let low = of(_mm512_castsi512_si256(a), _mm512_castsi512_si256(b));
    let high = of(_mm512_extracti64x4_epi64::<1>(a), _mm512_extracti64x4_epi64::<1>(b));
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
}

#[target_feature(enable = "avx512bw")]
pub(super) fn _mm512_mulhrs_epi16(a: __m512i, b: __m512i) -> __m512i {
    halves(a, b, |a, b| _mm256_mulhrs_epi16(a, b))
}

#[target_feature(enable = "avx512bw")]
pub(super) fn _mm512_sll_epi16(a: __m512i, count: __m128i) -> __m512i {
    halves(a, a, |a, _| _mm256_sll_epi16(a, count))
}

#[target_feature(enable = "avx512f")]
pub(super) fn _mm512_sll_epi32(a: __m512i, count: __m128i) -> __m512i {
    halves(a, a, |a, _| _mm256_sll_epi32(a, count))
}

#[target_feature(enable = "avx512f")]
pub(super) fn _mm512_srl_epi32(a: __m512i, count: __m128i) -> __m512i {
    halves(a, a, |a, _| _mm256_srl_epi32(a, count))
}

#[target_feature(enable = "avx512f")]
pub(super) fn _mm512_min_ps(a: __m512, b: __m512) -> __m512 {
    let min = |a, b| _mm256_castps_si256(_mm256_min_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b)));
    _mm512_castsi512_ps(halves(_mm512_castps_si512(a), _mm512_castps_si512(b), min))
}

#[target_feature(enable = "avx512f")]
pub(super) fn _mm512_max_ps(a: __m512, b: __m512) -> __m512 {
    let max = |a, b| _mm256_castps_si256(_mm256_max_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b)));
    _mm512_castsi512_ps(halves(_mm512_castps_si512(a), _mm512_castps_si512(b), max))
}

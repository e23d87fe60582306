//! The three integer operations that everything is made of.

/// `x / 2^n`, rounded half up; `0 <= n <= 31` and `|x| <= 2^30`.
#[inline]
pub(crate) const fn rsh(x: i32, n: u32) -> i32 {
    (x + ((1_u32 << n) >> 1) as i32) >> n
}

/// `a · b / 2^15`, rounded half up: the rounding high product of 16-bit lanes (`pmulhrsw`, `sqrdmulh`).
///
/// The only product that leaves 16 bits, -1 · -1, does not occur: one factor is always non-negative.
#[inline]
pub(crate) const fn mulhrs(a: i16, b: i16) -> i16 {
    ((a as i32 * b as i32 + (1 << 14)) >> 15) as i16
}

/// `a · b / 2^16`, rounded down: the high product of unsigned 16-bit lanes (`pmulhuw`).
#[inline]
pub(crate) const fn mulhi(a: u16, b: u16) -> u16 {
    ((a as u32 * b as u32) >> 16) as u16
}

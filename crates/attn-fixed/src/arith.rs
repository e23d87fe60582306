//! The two integer operations that everything is made of.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shifts_round_half_up_from_0_to_31() {
        for n in 0..=31 {
            for x in [-(1 << 30), -12_345, -3, -2, -1, 0, 1, 2, 3, 12_345, 1 << 29, (1 << 30) - 1] {
                let exact = (2 * i64::from(x) + (1 << n)).div_euclid(2 << n);
                assert_eq!(i64::from(rsh(x, n)), exact, "{x} {n}");
            }
        }
    }
}

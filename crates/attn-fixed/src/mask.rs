//! Which keys a query sees.

use core::ops::Range;

use crate::{BLOCK, MaskError};

/// Which keys each query sees: the conjunction of a number of valid keys, a causal rule and a boolean mask.
///
/// ```
/// use attn_fixed::Mask;
///
/// // A decoder step: 3 new queries after 10 cached keys, in a buffer with room for 32.
/// let mask = Mask::new().valid_keys(13).causal(10);
/// assert!(mask.visible(0, 10) && !mask.visible(0, 11) && mask.visible(2, 12) && !mask.visible(2, 13));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Mask<'a> {
    valid_keys: Option<usize>,
    causal: Option<usize>,
    /// The boolean mask and the length of its rows.
    allowed: Option<(&'a [bool], usize)>,
}

impl<'a> Mask<'a> {
    /// Every query sees every key.
    #[must_use]
    pub const fn new() -> Self {
        Self { valid_keys: None, causal: None, allowed: None }
    }

    /// Only the first `keys` keys are visible (padding behind them); 0 hides all.
    #[must_use]
    pub const fn valid_keys(mut self, keys: usize) -> Self {
        self.valid_keys = Some(keys);
        self
    }

    /// Query `i` sees the keys `j <= i + offset`; `offset` is the number of keys cached before the first query.
    #[must_use]
    pub const fn causal(mut self, offset: usize) -> Self {
        self.causal = Some(offset);
        self
    }

    /// Query `i` sees key `j` only where `allowed[i * row + j]` is true: row-major `[queries, keys]` in rows of `row`.
    ///
    /// Either dimension may be 1 and then holds for every query, or every key: a single row of all keys (padding), or a
    /// `row` of 1.
    #[must_use]
    pub const fn allowed(mut self, allowed: &'a [bool], row: usize) -> Self {
        self.allowed = Some((allowed, row));
        self
    }

    /// The mask of some of the queries, which are then counted from the first of them. Of queries beyond a boolean mask
    /// nothing is visible.
    ///
    /// ```
    /// use attn_fixed::Mask;
    ///
    /// let mask = Mask::new().causal(10).rows(3..5);
    /// assert!(mask.visible(1, 14) && !mask.visible(1, 15));
    /// ```
    #[must_use]
    pub fn rows(mut self, queries: Range<usize>) -> Self {
        if let Some(offset) = &mut self.causal {
            *offset = offset.saturating_add(queries.start);
        }
        if let Some((allowed, row)) = &mut self.allowed
            && allowed.len() != *row
        {
            let rows = queries.start.saturating_mul(*row)..queries.end.saturating_mul(*row);
            *allowed = allowed.get(rows).unwrap_or_default();
        }
        self
    }

    /// Checks the mask against the shape of an attention.
    ///
    /// # Errors
    /// More valid keys than `keys`, or a boolean mask that is not `[queries or 1, keys or 1]`.
    pub const fn check(&self, queries: usize, keys: usize) -> Result<(), MaskError> {
        if let Some(got) = self.valid_keys
            && got > keys
        {
            return Err(MaskError::ValidKeys { got, keys });
        }
        if let Some((allowed, row)) = self.allowed
            && !((row == keys || row == 1) && (allowed.len() == row || is_product(allowed.len(), queries, row)))
        {
            return Err(MaskError::Allowed { got: (allowed.len(), row), expected: (queries, keys) });
        }
        Ok(())
    }

    /// Whether query `query` sees key `key`; beyond the end of a boolean mask nothing is visible.
    #[must_use]
    pub fn visible(&self, query: usize, key: usize) -> bool {
        key < self.end(query, usize::MAX)
            && self.allowed.is_none_or(|(allowed, row)| {
                let query = if allowed.len() == row { 0 } else { query };
                let key = if row == 1 { 0 } else { key };
                key < row
                    && query
                        .checked_mul(row)
                        .and_then(|first| allowed.get(first.checked_add(key)?))
                        .is_some_and(|&visible| visible)
            })
    }

    /// One past the last key that `query` can see by the number of valid keys and the causal rule, at most `keys`.
    #[must_use]
    pub fn end(&self, query: usize, keys: usize) -> usize {
        let valid = self.valid_keys.unwrap_or(keys).min(keys);
        match self.causal {
            Some(offset) => valid.min(query.saturating_add(offset).saturating_add(1)),
            None => valid,
        }
    }

    /// Whether every query sees the keys before its [`end`](Self::end) and no others: there is no boolean mask.
    #[must_use]
    pub const fn is_prefix(&self) -> bool {
        self.allowed.is_none()
    }

    /// The keys that `query` sees of the block of `keys` (at most [`BLOCK`]) keys from `first` on, one bit a key.
    #[must_use]
    pub fn block(&self, query: usize, first: usize, keys: usize) -> u64 {
        let keys = keys.min(BLOCK);
        let end = self.end(query, first.saturating_add(keys));
        let seen = end.saturating_sub(first);
        let prefix = if seen == 0 { 0 } else { u64::MAX >> (BLOCK - seen) };
        match self.allowed {
            None => prefix,
            Some(_) => (0..seen).filter(|j| self.visible(query, first + j)).fold(0, |bits, j| bits | 1 << j),
        }
    }
}

/// Whether `length` is `queries · row`, without overflow.
const fn is_product(length: usize, queries: usize, row: usize) -> bool {
    match queries.checked_mul(row) {
        Some(product) => product == length,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_the_bits_of_visible() {
        let allowed: [bool; 5 * 150] = core::array::from_fn(|i| i % 7 != 3);
        let masks = [
            Mask::new(),
            Mask::new().valid_keys(0),
            Mask::new().valid_keys(130),
            Mask::new().causal(0),
            Mask::new().causal(126).valid_keys(129),
            Mask::new().allowed(&allowed, 150),
            Mask::new().allowed(&allowed, 150).causal(63),
        ];
        for mask in masks {
            mask.check(5, 150).expect("fits");
            for query in 0..5 {
                for (first, keys) in [(0, 64), (64, 64), (128, 22)] {
                    let bits = mask.block(query, first, keys);
                    for j in 0..64 {
                        let expected = j < keys && mask.visible(query, first + j);
                        assert_eq!(bits >> j & 1 == 1, expected, "{mask:?} {query} {first} {j}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_dimension_of_one_holds_for_all() {
        let allowed: [bool; 5 * 150] = core::array::from_fn(|i| i % 7 != 3);
        let (row, column) = (&allowed[..150], &allowed[..5]);
        for (mask, expected) in [
            (Mask::new().allowed(row, 150), (|_, key| key % 7 != 3) as fn(usize, usize) -> bool),
            (Mask::new().allowed(column, 1), |query, _| query != 3),
            (Mask::new().allowed(&allowed[3..4], 1), |_, _| false),
            (Mask::new().allowed(&allowed, 150), |query, key| (query * 150 + key) % 7 != 3),
        ] {
            mask.check(5, 150).expect("fits");
            for query in 0..5 {
                for key in 0..150 {
                    assert_eq!(mask.visible(query, key), expected(query, key), "{query} {key}");
                }
            }
        }
    }

    #[test]
    fn rows_are_counted_from_the_first_of_them() {
        let allowed: [bool; 5 * 150] = core::array::from_fn(|i| i % 7 != 3);
        for mask in [
            Mask::new().causal(20).valid_keys(23),
            Mask::new().allowed(&allowed, 150),
            Mask::new().allowed(&allowed[..150], 150),
            Mask::new().allowed(&allowed[..5], 1).causal(0),
        ] {
            for first in 0..5 {
                let rows = mask.rows(first..5);
                rows.check(5 - first, 150).expect("fits");
                for query in first..5 {
                    for key in 0..150 {
                        assert_eq!(rows.visible(query - first, key), mask.visible(query, key), "{first} {query} {key}");
                    }
                }
            }
        }
        assert!(!Mask::new().allowed(&allowed, 150).rows(5..6).visible(0, 0), "beyond the end");
        assert!(Mask::new().causal(usize::MAX).rows(3..4).visible(0, 9));
        #[expect(clippy::reversed_empty_ranges, reason = "a wrong range is not a panic")]
        let reversed = Mask::new().allowed(&allowed, 150).rows(usize::MAX..1);
        assert!(!reversed.visible(0, 0));
    }

    #[test]
    fn a_mask_of_another_shape_is_refused() {
        let allowed = [true; 12];
        assert_eq!(Mask::new().valid_keys(4).check(3, 4), Ok(()));
        assert_eq!(Mask::new().valid_keys(5).check(3, 4), Err(MaskError::ValidKeys { got: 5, keys: 4 }));
        assert_eq!(Mask::new().allowed(&allowed, 4).check(3, 4), Ok(()));
        let expected = MaskError::Allowed { got: (12, 4), expected: (4, 3) };
        assert_eq!(
            Mask::new().allowed(&allowed, 4).check(4, 3),
            Err(expected),
            "a transposed mask has the right length but not the right shape"
        );
        assert!(Mask::new().allowed(&allowed, 4).check(usize::MAX, 4).is_err());
        for (got, row) in [(3, 4), (5, 4), (11, 4), (2, 1), (4, 1), (0, 1), (0, 0), (12, 0)] {
            assert!(Mask::new().allowed(&allowed[..got], row).check(3, 4).is_err(), "{got} in rows of {row}");
        }
        assert!(!Mask::new().allowed(&allowed, 4).visible(usize::MAX, 1));
        assert!(!Mask::new().allowed(&allowed, 4).visible(1, 4), "the next row's first key");
        assert!(Mask::new().causal(usize::MAX).visible(7, 9));
        assert_eq!(Mask::new().block(0, usize::MAX - 3, BLOCK), 0b111);
    }
}

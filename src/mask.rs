//! Masks that own their boolean part.

use attn_fixed::Mask;
use ndarray::{ArrayD, IxDyn};

/// Which keys the queries of several heads see: the conjunction of the three parts of [`Mask`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeadMasks {
    /// [`Mask::valid_keys`] of every head.
    pub valid_keys: Option<usize>,
    /// [`Mask::causal`] of every head.
    pub causal: Option<usize>,
    /// [`Mask::allowed`] of each head.
    pub allowed: Option<BooleanMask>,
}

impl HeadMasks {
    /// The mask of one head.
    ///
    /// # Panics
    /// A head that there is not.
    #[must_use]
    pub fn head(&self, head: usize) -> Mask<'_> {
        let mut mask = Mask::new();
        if let Some(valid_keys) = self.valid_keys {
            mask = mask.valid_keys(valid_keys);
        }
        if let Some(offset) = self.causal {
            mask = mask.causal(offset);
        }
        if let Some(BooleanMask { planes, plane_len, row, plane_of_head }) = &self.allowed {
            mask = mask.allowed(&planes[plane_of_head[head] * plane_len..][..*plane_len], *row);
        }
        mask
    }
}

/// A boolean mask of `[heads, queries, keys]`, true where a query sees a key. It takes the memory of the array that it
/// was broadcast from, whatever it is broadcast to.
#[derive(Clone, Debug, PartialEq)]
pub struct BooleanMask {
    /// `[planes, queries or 1, keys or 1]`
    planes: Vec<bool>,
    /// Elements of a plane.
    plane_len: usize,
    /// Elements of a row: keys or 1.
    row: usize,
    /// The plane of each head.
    plane_of_head: Vec<usize>,
}

impl BooleanMask {
    /// Whether [`broadcast`](Self::broadcast) takes an array of this shape.
    #[must_use]
    pub fn fits(shape: &[usize], lead: &[usize], rows: [usize; 2]) -> bool {
        shape_fits(shape, lead, rows) || shape_fits(shape, &[lead.iter().product()], rows)
    }

    /// Broadcasts an array, `elements` in C order, to `[lead.., queries, keys]`; where that is not possible, to
    /// `[heads, queries, keys]`, the leading dimensions flattened. The rules are numpy's.
    ///
    /// None where it broadcasts to neither or has another number of elements than its shape.
    #[must_use]
    pub fn broadcast(
        elements: Vec<bool>,
        shape: &[usize],
        lead: &[usize],
        [queries, keys]: [usize; 2],
    ) -> Option<Self> {
        let count = shape.iter().try_fold(1_usize, |count, &length| count.checked_mul(length));
        let flat = [lead.iter().product()];
        let lead = if shape_fits(shape, lead, [queries, keys]) { lead } else { &flat };
        if count != Some(elements.len()) || !shape_fits(shape, lead, [queries, keys]) {
            return None;
        }
        let mut padded = vec![1; 2_usize.saturating_sub(shape.len())];
        padded.extend_from_slice(shape);
        let (planes, rows) = padded.split_at(padded.len() - 2);
        let numbers = ArrayD::from_shape_vec(IxDyn(planes), (0..planes.iter().product()).collect()).ok()?;
        let plane_of_head = numbers.broadcast(lead)?.iter().copied().collect();
        Some(Self { planes: elements, plane_len: rows[0] * rows[1], row: rows[1], plane_of_head })
    }
}

/// Whether an array of this shape broadcasts to `[lead.., queries, keys]`.
fn shape_fits(shape: &[usize], lead: &[usize], rows: [usize; 2]) -> bool {
    let expected = [lead, &rows].concat();
    shape.len() <= expected.len()
        && shape.iter().rev().zip(expected.iter().rev()).all(|(&got, &expected)| got == 1 || got == expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Element `i` is true where `i % 3 == 0`.
    fn mask(shape: &[usize], lead: &[usize], rows: [usize; 2]) -> Option<BooleanMask> {
        let elements = (0..shape.iter().product()).map(|i: usize| i.is_multiple_of(3)).collect();
        BooleanMask::broadcast(elements, shape, lead, rows)
    }

    #[test]
    fn broadcasts_as_numpy_does() {
        let at = |shape: &[usize], head, query, key| {
            let masks = HeadMasks { allowed: mask(shape, &[2, 3], [4, 5]), ..HeadMasks::default() };
            assert!(masks.allowed.is_some(), "{shape:?}");
            masks.head(head).check(4, 5).expect("fits");
            masks.head(head).visible(query, key)
        };
        for head in 0..6 {
            for query in 0..4 {
                for key in 0..5 {
                    let every_third = |i: usize| i.is_multiple_of(3);
                    let (row, batch) = (query * 5 + key, head / 3);
                    assert_eq!(at(&[2, 3, 4, 5], head, query, key), every_third(head * 20 + row));
                    // Leading dimensions flattened.
                    assert_eq!(at(&[6, 4, 5], head, query, key), every_third(head * 20 + row));
                    assert_eq!(at(&[3, 4, 5], head, query, key), every_third(head % 3 * 20 + row));
                    assert_eq!(at(&[2, 1, 4, 5], head, query, key), every_third(batch * 20 + row));
                    assert_eq!(at(&[2, 1, 1, 5], head, query, key), every_third(batch * 5 + key));
                    assert_eq!(at(&[3, 4, 1], head, query, key), every_third(head % 3 * 4 + query));
                    assert_eq!(at(&[4, 5], head, query, key), every_third(row));
                    assert_eq!(at(&[5], head, query, key), every_third(key));
                    assert!(at(&[], head, query, key));
                }
            }
        }
    }

    #[test]
    fn what_does_not_broadcast_is_none() {
        for shape in [&[4][..], &[5, 4], &[2, 4, 5], &[3, 2, 4, 5], &[1, 2, 3, 4, 5], &[6, 4, 4]] {
            assert_eq!(mask(shape, &[2, 3], [4, 5]), None, "{shape:?}");
        }
        assert_eq!(BooleanMask::broadcast(vec![true; 19], &[4, 5], &[], [4, 5]), None);
    }
}

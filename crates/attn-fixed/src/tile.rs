//! The tile: attention whose shape the compiler knows.

use crate::{AttentionError, Inputs, MAX_DIM, MAX_KEYS, MIN_DIM, Mask, Parameters, scratch_len, sequence::attend_rows};

/// `out = softmax(q·kᵀ / √D) · v` for `M` queries and `N` keys of dimension `D`, masked: the same bits as
/// [`attend`](crate::attend), with the scratch memory on the stack and the shape checked when the program is compiled.
///
/// # Errors
/// Parameters for another dimension than `D`, or a mask that is not `M` × `N`; `out` is then untouched.
///
/// ```
/// use attn_fixed::{Mask, Parameters, Scales, attend_tile};
///
/// let parameters = Parameters::new(64, Scales { query: 0.05, key: 0.05, value: 0.02, out: 0.02 })?;
/// let (query, key, value) = ([[3; 64]; 16], [[7; 64]; 64], [[-5; 64]; 64]);
/// let mut out = [[0; 64]; 16];
/// attend_tile(&parameters, &query, &key, &value, &Mask::new(), &mut out)?;
/// assert_eq!(out, [[-5; 64]; 16]); // The mean of equal values.
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
///
/// A shape outside the limits does not compile:
/// ```compile_fail
/// # use attn_fixed::{Mask, Parameters, Scales, attend_tile};
/// # let parameters = Parameters::new(8, Scales { query: 1.0, key: 1.0, value: 1.0, out: 1.0 }).unwrap();
/// let _ = attend_tile(&parameters, &[[0; 7]; 1], &[[0; 7]; 1], &[[0; 7]; 1], &Mask::new(), &mut [[0; 7]; 1]);
/// ```
pub fn attend_tile<const M: usize, const N: usize, const D: usize>(
    parameters: &Parameters,
    query: &[[i8; D]; M],
    key: &[[i8; D]; N],
    value: &[[i8; D]; N],
    mask: &Mask<'_>,
    out: &mut [[i8; D]; M],
) -> Result<(), AttentionError> {
    const {
        assert!(M >= 1, "a tile has at least one query");
        assert!(N >= 1 && N <= MAX_KEYS, "a tile has 1 to MAX_KEYS keys");
        assert!(D >= MIN_DIM && D <= MAX_DIM, "a tile's dimension is MIN_DIM to MAX_DIM");
        assert!(scratch_len(D) == 2 * D, "the scratch memory below");
    }
    if parameters.dim() != D {
        return Err(AttentionError::Dim { got: D, expected: parameters.dim() });
    }
    let inputs = Inputs { query: query.as_flattened(), key: key.as_flattened(), value: value.as_flattened() };
    inputs.check(D, mask, M * D)?;
    let mut scratch = [[0; D]; 2];
    attend_rows(D, parameters, inputs, mask, scratch.as_flattened_mut(), out.as_flattened_mut());
    Ok(())
}

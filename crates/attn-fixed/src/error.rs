//! What can be wrong with a caller's input. Every variant carries what was given, every message says what is accepted.

use core::{error::Error, fmt};

use crate::{MAX_DIM, MAX_KEYS, MIN_DIM, scale};

/// The tensor or scale that an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tensor {
    /// Queries, `[queries, dim]`.
    Query,
    /// Keys, `[keys, dim]`.
    Key,
    /// Values, `[keys, dim]`.
    Value,
    /// The output, `[queries, dim]`.
    Out,
}

impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Query => "query",
            Self::Key => "key",
            Self::Value => "value",
            Self::Out => "output",
        })
    }
}

/// Why [`Parameters`](crate::Parameters) were refused.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum ParameterError {
    /// The head dimension is outside [`MIN_DIM`]`..=`[`MAX_DIM`].
    Dim {
        /// The dimension given.
        got: usize,
    },
    /// A scale is not a positive, finite number.
    Scale {
        /// The tensor whose scale it is.
        tensor: Tensor,
        /// The scale given.
        got: f32,
    },
    /// `scale_q · scale_k · √dim` exceeds [`scale::MAX_SCORE_SCALE`].
    ScoreScale {
        /// The product given.
        got: f64,
    },
    /// `scale_v / scale_out` is outside [`scale::MIN_GAIN`]`..=`[`scale::MAX_GAIN`].
    Gain {
        /// The quotient given.
        got: f64,
    },
}

impl fmt::Display for ParameterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Dim { got } => write!(f, "head dimension: got {got}, expected {MIN_DIM} to {MAX_DIM}"),
            Self::Scale { tensor, got } => {
                write!(f, "{tensor} scale: got {got}, expected a positive finite number")
            }
            Self::ScoreScale { got } => write!(
                f,
                "query scale x key scale x sqrt(dimension): got {got}, expected at most {}",
                scale::MAX_SCORE_SCALE
            ),
            Self::Gain { got } => {
                write!(f, "value scale / output scale: got {got}, expected {} to {}", scale::MIN_GAIN, scale::MAX_GAIN)
            }
        }
    }
}

impl Error for ParameterError {}

/// Why a slice of floats was not quantised.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum QuantiseError {
    /// Nothing to quantise.
    Empty,
    /// NaN or infinity.
    NotFinite {
        /// Index of the first such element.
        index: usize,
        /// The element.
        got: f32,
    },
    /// The output slice has another length than the input.
    Length {
        /// Length of the output slice.
        got: usize,
        /// Length of the input.
        expected: usize,
    },
    /// The input does not divide into the heads that the scales slice asks for.
    Heads {
        /// Length of the input.
        got: usize,
        /// Number of heads.
        heads: usize,
    },
    /// A given scale is not a positive, finite number.
    Scale {
        /// The scale.
        got: f32,
    },
}

impl fmt::Display for QuantiseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Empty => f.write_str("quantise: got no elements, expected at least one"),
            Self::NotFinite { index, got } => {
                write!(f, "quantise: got {got} at element {index}, expected finite numbers")
            }
            Self::Length { got, expected } => {
                write!(f, "quantise: got room for {got} values, expected {expected}")
            }
            Self::Heads { got, heads } => {
                write!(f, "quantise: got {got} elements, expected a positive multiple of {heads} heads")
            }
            Self::Scale { got } => write!(f, "quantise: got scale {got}, expected a positive, finite number"),
        }
    }
}

impl Error for QuantiseError {}

/// Why a [`Mask`](crate::Mask) does not fit the attention it is used with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MaskError {
    /// More valid keys than keys.
    ValidKeys {
        /// Valid keys asked for.
        got: usize,
        /// Keys there are.
        keys: usize,
    },
    /// The boolean mask is not `[queries or 1, keys or 1]`.
    Allowed {
        /// Elements of the boolean mask and the row length it was made with.
        got: (usize, usize),
        /// Queries and keys of the attention.
        expected: (usize, usize),
    },
}

impl fmt::Display for MaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ValidKeys { got, keys } => {
                write!(f, "valid keys: got {got}, expected at most {keys}")
            }
            Self::Allowed { got, expected } => write!(
                f,
                "boolean mask: got {} elements in rows of {}, expected {} rows (or 1) of {} (or 1)",
                got.0, got.1, expected.0, expected.1
            ),
        }
    }
}

impl Error for MaskError {}

/// Why attention was not computed; the output is untouched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttentionError {
    /// A tensor without elements.
    Empty {
        /// The tensor.
        tensor: Tensor,
    },
    /// A tensor whose length is not a whole number of rows.
    Rows {
        /// The tensor.
        tensor: Tensor,
        /// Its length.
        got: usize,
        /// The head dimension, which the length must be a multiple of.
        dim: usize,
    },
    /// A tensor whose length does not agree with its partner's: values with keys, output with queries.
    Length {
        /// The tensor.
        tensor: Tensor,
        /// Its length.
        got: usize,
        /// The length of its partner.
        expected: usize,
    },
    /// More than [`MAX_KEYS`] keys.
    TooManyKeys {
        /// Keys given.
        got: usize,
    },
    /// The scratch slice is shorter than [`scratch_len`](crate::scratch_len).
    Scratch {
        /// Its length.
        got: usize,
        /// The length needed.
        expected: usize,
    },
    /// A head dimension that differs from the parameters', or between the parameters of several heads.
    Dim {
        /// The dimension.
        got: usize,
        /// The dimension of the (first) parameters.
        expected: usize,
    },
    /// A tensor that does not divide into its heads.
    Heads {
        /// The tensor.
        tensor: Tensor,
        /// Its length.
        got: usize,
        /// Its number of heads.
        heads: usize,
    },
    /// Query heads that do not divide into groups, one for each key and value head.
    Groups {
        /// Query heads.
        heads: usize,
        /// Key and value heads.
        kv_heads: usize,
    },
    /// Not one mask per head.
    Masks {
        /// Masks given.
        got: usize,
        /// Query heads.
        expected: usize,
    },
    /// The mask does not fit.
    Mask(MaskError),
}

impl From<MaskError> for AttentionError {
    fn from(error: MaskError) -> Self {
        Self::Mask(error)
    }
}

impl fmt::Display for AttentionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Empty { tensor } => {
                write!(f, "{tensor}: got no elements, expected at least one row")
            }
            Self::Rows { tensor, got, dim } => {
                write!(f, "{tensor}: got {got} elements, expected a multiple of the head dimension {dim}")
            }
            Self::Length { tensor, got, expected } => write!(f, "{tensor}: got {got} elements, expected {expected}"),
            Self::TooManyKeys { got } => {
                write!(f, "keys: got {got}, expected at most {MAX_KEYS}")
            }
            Self::Scratch { got, expected } => {
                write!(f, "scratch: got {got} elements, expected at least {expected}")
            }
            Self::Dim { got, expected } => {
                write!(f, "head dimension: got {got}, expected {expected} as in the parameters")
            }
            Self::Heads { tensor, got, heads } => {
                write!(f, "{tensor}: got {got} elements, expected a multiple of {heads} heads")
            }
            Self::Groups { heads, kv_heads } => {
                write!(f, "heads: got {heads}, expected a positive multiple of the {kv_heads} key and value heads")
            }
            Self::Masks { got, expected } => write!(f, "masks: got {got}, expected one for each of {expected} heads"),
            Self::Mask(error) => error.fmt(f),
        }
    }
}

impl Error for AttentionError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Mask(error) => Some(error),
            _ => None,
        }
    }
}

/// Why attention over floats was not computed; the output is untouched.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum FloatError {
    /// What is wrong with the shapes.
    Attention(AttentionError),
    /// A tensor that cannot be quantised.
    Quantise {
        /// The tensor.
        tensor: Tensor,
        /// What is wrong with it.
        error: QuantiseError,
    },
    /// A dimension or scales that there are no parameters for.
    Parameters(ParameterError),
}

impl From<AttentionError> for FloatError {
    fn from(error: AttentionError) -> Self {
        Self::Attention(error)
    }
}

impl From<ParameterError> for FloatError {
    fn from(error: ParameterError) -> Self {
        Self::Parameters(error)
    }
}

impl fmt::Display for FloatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attention(error) => error.fmt(f),
            Self::Quantise { tensor, error } => write!(f, "{tensor}: {error}"),
            Self::Parameters(error) => error.fmt(f),
        }
    }
}

impl Error for FloatError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            // It is printed itself.
            Self::Attention(error) => error.source(),
            Self::Quantise { .. } | Self::Parameters(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    extern crate std;
    use std::{boxed::Box, string::ToString};

    #[test]
    fn messages_say_what_was_given_and_what_is_accepted() {
        let not_finite = QuantiseError::NotFinite { index: 3, got: f32::INFINITY };
        let cases: [(Box<dyn Error>, &str); 15] = [
            (ParameterError::Dim { got: 7 }.into(), "head dimension: got 7, expected 8 to 256"),
            (
                ParameterError::Scale { tensor: Tensor::Query, got: -0.5 }.into(),
                "query scale: got -0.5, expected a positive finite number",
            ),
            (
                ParameterError::ScoreScale { got: 32.5 }.into(),
                "query scale x key scale x sqrt(dimension): got 32.5, expected at most 32",
            ),
            (
                ParameterError::Gain { got: 1e5 }.into(),
                "value scale / output scale: got 100000, expected 0.0000152587890625 to 65536",
            ),
            (QuantiseError::Empty.into(), "quantise: got no elements, expected at least one"),
            (not_finite.into(), "quantise: got inf at element 3, expected finite numbers"),
            (QuantiseError::Length { got: 1, expected: 2 }.into(), "quantise: got room for 1 values, expected 2"),
            (
                QuantiseError::Heads { got: 5, heads: 2 }.into(),
                "quantise: got 5 elements, expected a positive multiple of 2 heads",
            ),
            (QuantiseError::Scale { got: 0.0 }.into(), "quantise: got scale 0, expected a positive, finite number"),
            (
                AttentionError::Length { tensor: Tensor::Out, got: 1, expected: 2 }.into(),
                "output: got 1 elements, expected 2",
            ),
            (AttentionError::TooManyKeys { got: 1 << 21 }.into(), "keys: got 2097152, expected at most 1048576"),
            (
                AttentionError::from(MaskError::Allowed { got: (6, 2), expected: (2, 3) }).into(),
                "boolean mask: got 6 elements in rows of 2, expected 2 rows (or 1) of 3 (or 1)",
            ),
            (
                FloatError::Quantise { tensor: Tensor::Value, error: not_finite }.into(),
                "value: quantise: got inf at element 3, expected finite numbers",
            ),
            (
                FloatError::from(AttentionError::Masks { got: 1, expected: 2 }).into(),
                "masks: got 1, expected one for each of 2 heads",
            ),
            (FloatError::from(ParameterError::Dim { got: 7 }).into(), "head dimension: got 7, expected 8 to 256"),
        ];
        for (error, message) in cases {
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn the_source_of_an_error_is_the_mask() {
        let mask = MaskError::ValidKeys { got: 5, keys: 4 };
        let source = |error: AttentionError| error.source().map(ToString::to_string);
        assert_eq!(source(mask.into()), Some(mask.to_string()));
        assert_eq!(source(AttentionError::TooManyKeys { got: 5 }), None);
        assert_eq!(
            FloatError::from(AttentionError::from(mask)).source().map(ToString::to_string),
            Some(mask.to_string())
        );
    }
}

//! Why an archive was not read or written.

use std::{error::Error, fmt, io};

use super::Qkv;
use crate::file::FileProblem;

/// An archive that could not be read or written; printed in one line.
#[derive(Debug)]
pub struct NpzError {
    /// Name of the file, or what [`read_from`](super::read_from) was given for it.
    pub file: String,
    /// What is wrong with it.
    pub problem: NpzProblem,
}

/// What is wrong with an archive.
#[derive(Debug)]
pub enum NpzProblem {
    /// The file is missing or cannot be read.
    Io(io::Error),
    /// The file is not a zip archive.
    NotAnArchive {
        /// Its first bytes, at most 6.
        start: Vec<u8>,
    },
    /// The file starts as a zip archive but is damaged.
    Archive(String),
    /// An array is missing.
    Missing {
        /// The first one missing.
        array: &'static str,
        /// The arrays of the archive, sorted.
        found: Vec<String>,
        /// The arrays that are needed.
        expected: &'static str,
    },
    /// An array is encrypted, damaged or not in the npy format.
    Array {
        /// The array.
        array: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// An array has more or less data than its header says.
    Length {
        /// The array.
        array: &'static str,
        /// Its dtype.
        dtype: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Bytes of data in the archive.
        got: u64,
        /// Bytes that dtype and shape ask for.
        expected: u64,
    },
    /// An array is larger than the memory that can be had.
    Memory {
        /// The array.
        array: &'static str,
        /// Its dtype.
        dtype: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// An array is of another dtype than those which are read.
    DType {
        /// The array.
        array: &'static str,
        /// Its dtype.
        got: String,
        /// The dtypes that are read.
        expected: &'static str,
    },
    /// Some of `q`, `k` and `v` are float and some int8: their dtypes.
    Mixed(Qkv<String>),
    /// An array has fewer than two dimensions.
    TooFewDimensions {
        /// The array.
        array: &'static str,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// An array has no elements.
    Empty {
        /// The array.
        array: &'static str,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// `k` and `v` are of different shapes.
    KeyValue {
        /// Shape of `k`.
        key: Vec<usize>,
        /// Shape of `v`.
        value: Vec<usize>,
    },
    /// `q` and `k` differ in their last dimension.
    Dim {
        /// Shape of `q`.
        query: Vec<usize>,
        /// Shape of `k`.
        key: Vec<usize>,
    },
    /// The heads of `q` cannot be divided among those of `k` and `v`.
    Heads {
        /// Shape of `q`.
        query: Vec<usize>,
        /// Shape of `k` and `v`.
        key: Vec<usize>,
    },
    /// The mask does not broadcast.
    Mask {
        /// Its shape.
        shape: Vec<usize>,
        /// The shape that it has to broadcast to.
        expected: Vec<usize>,
    },
    /// An element is NaN or infinite, or a float64 beyond the range of float32.
    NotFinite {
        /// The array.
        array: &'static str,
        /// Index of the element.
        index: Vec<usize>,
        /// The element.
        got: f64,
    },
    /// There are scales although the arrays are float.
    ScaleOfFloat {
        /// The first of them.
        scale: &'static str,
    },
    /// There is neither one scale nor one per head.
    ScaleCount {
        /// The array of scales.
        scale: &'static str,
        /// Its shape.
        shape: Vec<usize>,
        /// Leading dimensions of the array whose scales they are.
        lead: Vec<usize>,
    },
    /// A scale is not a positive and finite float32.
    Scale {
        /// The array of scales.
        scale: &'static str,
        /// Index of the scale.
        index: Vec<usize>,
        /// The scale.
        got: f64,
    },
    /// The file cannot be written.
    File(FileProblem),
}

impl From<FileProblem> for NpzProblem {
    fn from(problem: FileProblem) -> Self {
        Self::File(problem)
    }
}

impl Error for NpzError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.problem {
            NpzProblem::Io(error) => Some(error),
            NpzProblem::File(problem) => problem.source(),
            _ => None,
        }
    }
}

impl fmt::Display for NpzError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.problem)
    }
}

impl fmt::Display for NpzProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "cannot read it: {error}"),
            Self::NotAnArchive { start } if start.is_empty() => {
                f.write_str("the file is empty, expected an .npz archive")
            }
            Self::NotAnArchive { start } if start == b"\x93NUMPY" => f.write_str(
                "this is a single .npy array, expected an .npz archive: write it with numpy.savez(file, q=q, k=k, v=v)",
            ),
            Self::NotAnArchive { start } => {
                write!(f, "not an .npz archive: it starts with \"{}\", expected \"PK\"", start.escape_ascii())
            }
            Self::Archive(reason) => write!(f, "the archive is truncated or damaged ({reason}): write it again"),
            Self::Missing { array, found, expected } => {
                write!(f, "no array {array}: the archive holds {}, expected {expected}", Names(found))
            }
            Self::Array { array, reason } => {
                write!(f, "cannot read array {array}: {reason}: write the archive again with numpy.savez")
            }
            Self::Length { array, dtype, shape, got, expected } => write!(
                f,
                "{array} holds {got} bytes of data, expected {expected} for {dtype} of shape {}: write the archive again",
                Shape(shape),
            ),
            Self::Memory { array, dtype, shape } => {
                write!(f, "{array} is {dtype} of shape {}: there is not enough memory for it", Shape(shape))
            }
            Self::DType { array, got, expected } => write!(f, "{array} is {got}, expected {expected}"),
            Self::Mixed(Qkv { query, key, value }) => {
                write!(f, "q is {query}, k is {key} and v is {value}, expected all three float or all three int8")
            }
            Self::TooFewDimensions { array, shape } => {
                write!(f, "{array} has shape {}, expected two dimensions or more, [.., sequence, d]", Shape(shape))
            }
            Self::Empty { array, shape } => {
                write!(f, "{array} has shape {}, expected no dimension of zero", Shape(shape))
            }
            Self::KeyValue { key, value } => {
                write!(f, "k has shape {} and v has shape {}, expected equal shapes", Shape(key), Shape(value))
            }
            Self::Dim { query, key } => {
                write!(f, "q has shape {} and k has shape {}, expected equal last dimensions", Shape(query), Shape(key))
            }
            Self::Heads { query, key } => write!(
                f,
                "q has shape {} and k has shape {}, expected q's heads to be a multiple of k's and the dimensions before \
                 them to agree",
                Shape(query),
                Shape(key),
            ),
            Self::NotFinite { array, index, got } if got.is_finite() => {
                write!(f, "{array}{} is {got:e}, expected at most {:e}, the largest float32", Index(index), f32::MAX)
            }
            Self::NotFinite { array, index, got } => {
                write!(f, "{array}{} is {got}, expected a finite number", Index(index))
            }
            Self::ScaleOfFloat { scale } => {
                write!(f, "{scale} beside float arrays, expected none: leave it out, or store the arrays as int8")
            }
            Self::ScaleCount { scale, shape, lead } => {
                write!(f, "{scale} has shape {}, expected one number or one per head", Shape(shape))?;
                match lead[..] {
                    [] => Ok(()),
                    [_] => write!(f, ": {}", Shape(lead)),
                    _ => write!(f, ": {} or ({},)", Shape(lead), lead.iter().product::<usize>()),
                }
            }
            Self::Scale { scale, index, got } => {
                write!(f, "{scale}{} is {got:?}, expected a positive and finite float32", Index(index))
            }
            Self::Mask { shape, expected } => write!(
                f,
                "mask has shape {}, expected one that broadcasts to {}: [.., queries, keys]",
                Shape(shape),
                Shape(expected),
            ),
            Self::File(problem) => problem.fmt(f),
        }
    }
}

/// A shape as numpy prints it.
pub(crate) struct Shape<'a>(pub(crate) &'a [usize]);

impl fmt::Display for Shape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lengths: Vec<_> = self.0.iter().map(usize::to_string).collect();
        write!(f, "({}{})", lengths.join(", "), if lengths.len() == 1 { "," } else { "" })
    }
}

/// An index as numpy takes it; nothing for the only element of an array without dimensions.
struct Index<'a>(&'a [usize]);

impl fmt::Display for Index<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "{:?}", self.0) }
    }
}

/// Names of arrays, the first of many.
struct Names<'a>(&'a [String]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 10;
        if self.0.is_empty() {
            return f.write_str("nothing");
        }
        let names: Vec<_> = self.0.iter().take(SHOWN).map(|name| name.escape_debug().to_string()).collect();
        f.write_str(&names.join(", "))?;
        if self.0.len() > SHOWN { write!(f, " and {} more", self.0.len() - SHOWN) } else { Ok(()) }
    }
}

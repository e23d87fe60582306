//! Attention's inputs and outputs as `.npz` archives, as numpy's `savez` and `savez_compressed` write and `load` reads
//! them.
//!
//! # Inputs
//!
//! | array | shape | dtype |
//! |---|---|---|
//! | `q` | `[.., queries, d]` | float16, float32 or float64, else int8 |
//! | `k`, `v` | `[.., keys, d]`, equal | as `q`: all three float (of any widths), or all three int8 |
//! | `q_scale`, `k_scale`, `v_scale` | one number, or one per head of its array: `[heads]`, or its leading dimensions | a float; int32 and int64 too, because Python's `1` is saved so |
//! | `mask`, may be absent | broadcasts to `[.., queries, keys]`, leading dimensions as `q`'s or flattened to heads | bool: true where a query sees a key |
//!
//! The scales belong to int8 arrays and are required there: value = integer * scale. Beside float arrays they are
//! refused, because it cannot be known whether they were already applied. Other arrays of the archive are ignored.
//!
//! Leading dimensions are flattened to heads, in C order; an array of two dimensions is one head. With grouped heads,
//! `q` is `[.., h, queries, d]`, `k` and `v` are `[.., g, keys, d]`, `h` is a multiple of `g` and the dimensions before
//! them agree (missing ones count as 1). A single head of `k` and `v` serves all heads of `q`.
//!
//! # Outputs
//!
//! | array | shape | dtype |
//! |---|---|---|
//! | `out` | that of `q` | int8; [`Output::read`] takes float16, float32 and float64 too |
//! | `out_scale` | `[heads]`; a single number is read too | float32; required beside int8, refused beside floats |
//!
//! # Files
//!
//! C and Fortran order, little and big endian, stored and deflated archives, zip64 and all npy versions (1.0 to 3.0)
//! are read. No input makes this module panic or allocate more than a small multiple of what the archive really holds.

mod archive;
mod error;
mod output;

use std::{
    fs::{self, File},
    io::{BufReader, Read, Seek},
    path::Path,
};

use crate::{file::FileProblem, mask::BooleanMask};
use archive::{Archive, Array};

pub(crate) use error::Shape;
pub use error::{NpzError, NpzProblem};
pub use output::{Output, OutputValues};

/// One `T` for each of query, key and value.
#[derive(Debug, Clone, PartialEq)]
pub struct Qkv<T> {
    /// Of the query, `q`.
    pub query: T,
    /// Of the key, `k`.
    pub key: T,
    /// Of the value, `v`.
    pub value: T,
}

/// The attention inputs of one archive: complete, consistent in shape and finite.
///
/// No dimension is zero, and `heads` is a multiple of `kv_heads`: head `h` reads head `h / (heads / kv_heads)` of key
/// and value.
#[derive(Debug, Clone, PartialEq)]
pub struct Inputs {
    /// Number of heads of the query: the product of its leading dimensions.
    pub heads: usize,
    /// Number of heads of key and value: the product of their leading dimensions.
    pub kv_heads: usize,
    /// Number of queries per head.
    pub queries: usize,
    /// Number of keys per head.
    pub keys: usize,
    /// Length `d` of every vector.
    pub dim: usize,
    /// Shape of `q` in the archive, `[.., queries, dim]`: the shape a user expects of the output.
    pub query_shape: Vec<usize>,
    /// Which keys are visible, if the archive says so.
    pub mask: Option<BooleanMask>,
    /// The numbers.
    pub values: Values,
}

/// The numbers of [`Inputs`] in C order: the query is `[heads, queries, dim]`, key and value `[kv_heads, keys, dim]`.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Real numbers, all finite.
    Float(Qkv<Vec<f32>>),
    /// Integers and their scales.
    Int8 {
        /// The integers, in `-128..=127`.
        values: Qkv<Vec<i8>>,
        /// The scales, positive and finite, one per head: `heads` for the query, `kv_heads` for key and value. A single
        /// number of the archive is repeated.
        scales: Qkv<Vec<f32>>,
    },
}

/// Reads the attention inputs of the archive at `path`.
///
/// # Errors
/// [`NpzError`] when the file cannot be read, or does not hold what the [module](self) asks for.
pub fn read(path: &Path) -> Result<Inputs, NpzError> {
    open(path).and_then(inputs).map_err(|problem| NpzError { file: path.display().to_string(), problem })
}

/// Opens a file. A pipe, which an archive cannot be read from, could keep this waiting.
fn open(path: &Path) -> Result<BufReader<File>, NpzProblem> {
    if !fs::metadata(path).map_err(NpzProblem::Io)?.is_file() {
        return Err(FileProblem::NotAFile.into());
    }
    Ok(BufReader::new(File::open(path).map_err(NpzProblem::Io)?))
}

/// Reads the attention inputs of the archive in `reader`, which `name` names in errors.
///
/// # Errors
/// As [`read`].
pub fn read_from(reader: impl Read + Seek, name: &str) -> Result<Inputs, NpzError> {
    inputs(reader).map_err(|problem| NpzError { file: name.to_owned(), problem })
}

fn inputs(reader: impl Read + Seek) -> Result<Inputs, NpzProblem> {
    let mut archive = Archive::open(reader)?;
    archive.require(&["q", "k", "v"], "q, k and v (numpy.savez(file, q=q, k=k, v=v))")?;
    // All headers before any data: compressed, a tensor of anything is small.
    let tensors = Qkv { query: archive.tensor("q")?, key: archive.tensor("k")?, value: archive.tensor("v")? };
    let Qkv { query, key, value } = &tensors;
    let (heads, kv_heads) = head_counts(&query.shape, &key.shape, &value.shape)?;
    let [queries, dim] = [2, 1].map(|back| query.shape[query.shape.len() - back]);
    let keys = key.shape[key.shape.len() - 2];
    let (query_lead, key_lead) = (&query.shape[..query.shape.len() - 2], &key.shape[..key.shape.len() - 2]);
    let mask = if archive.contains("mask") { Some(archive.mask(query_lead, [queries, keys])?) } else { None };
    let scales = ["q_scale", "k_scale", "v_scale"];
    let values = match [query, key, value].map(Array::is_int8) {
        [false, false, false] => {
            if let Some(scale) = scales.into_iter().find(|scale| archive.contains(scale)) {
                return Err(NpzProblem::ScaleOfFloat { scale });
            }
            let mut floats = |tensor: &Array| tensor.narrow(&archive.floats(tensor)?);
            Values::Float(Qkv { query: floats(query)?, key: floats(key)?, value: floats(value)? })
        }
        [true, true, true] => {
            archive.require(&scales, "q_scale, k_scale and v_scale beside int8 arrays (a number, or one per head)")?;
            let [query_scale, key_scale, value_scale] = scales;
            let scales = Qkv {
                query: archive.scales(query_scale, query_lead)?,
                key: archive.scales(key_scale, key_lead)?,
                value: archive.scales(value_scale, key_lead)?,
            };
            let mut integers = |tensor: &Array| archive.integers(tensor);
            let values = Qkv { query: integers(query)?, key: integers(key)?, value: integers(value)? };
            Values::Int8 { values, scales }
        }
        _ => {
            let [query, key, value] = [query, key, value].map(Array::dtype);
            return Err(NpzProblem::Mixed(Qkv { query, key, value }));
        }
    };
    let mask = mask.map(|mask| archive.broadcast(&mask, query_lead, [queries, keys])).transpose()?;
    Ok(Inputs { heads, kv_heads, queries, keys, dim, query_shape: tensors.query.shape, mask, values })
}

/// Heads of the query, and of key and value, from the three shapes.
fn head_counts(query: &[usize], key: &[usize], value: &[usize]) -> Result<(usize, usize), NpzProblem> {
    if key != value {
        return Err(NpzProblem::KeyValue { key: key.to_vec(), value: value.to_vec() });
    }
    if query.last() != key.last() {
        return Err(NpzProblem::Dim { query: query.to_vec(), key: key.to_vec() });
    }
    let (query_lead, key_lead) = (&query[..query.len() - 2], &key[..key.len() - 2]);
    let (heads, kv_heads) = (query_lead.iter().product::<usize>(), key_lead.iter().product::<usize>());
    // From the last leading dimension to the first, missing ones are 1: the last may be grouped, the others agree.
    let length = query_lead.len().max(key_lead.len());
    let padded = |lead: &[usize]| [vec![1; length - lead.len()], lead.to_vec()].concat();
    let grouped = match (padded(query_lead).split_last(), padded(key_lead).split_last()) {
        (Some((query, query_rest)), Some((key, key_rest))) => query % key == 0 && query_rest == key_rest,
        _ => true,
    };
    if grouped || kv_heads == 1 {
        Ok((heads, kv_heads))
    } else {
        Err(NpzProblem::Heads { query: query.to_vec(), key: key.to_vec() })
    }
}

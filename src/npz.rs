//! The attention inputs of an `.npz` archive, as numpy's `savez` and `savez_compressed` write it.
//!
//! | array | shape | dtype |
//! |---|---|---|
//! | `q` | `[.., queries, d]` | float16, float32 or float64, else int8 |
//! | `k`, `v` | `[.., keys, d]`, equal | as `q`: all three float (of any widths), or all three int8 |
//! | `q_scale`, `k_scale`, `v_scale` | one number, or one per head of its array | a float; int32 and int64 too, because Python's `1` is saved so |
//!
//! The scales belong to int8 arrays and are required there: value = integer * scale. Beside float arrays they are
//! refused, because it cannot be known whether they were already applied. Other arrays of the archive are ignored.
//!
//! Leading dimensions are flattened to heads, in C order; an array of two dimensions is one head. With grouped heads,
//! `q` is `[.., h, queries, d]`, `k` and `v` are `[.., g, keys, d]`, `h` is a multiple of `g` and the dimensions before
//! them agree (missing ones count as 1). A single head of `k` and `v` serves all heads of `q`.
//!
//! C and Fortran order, little and big endian, stored and deflated archives, zip64 and all npy versions (1.0 to 3.0)
//! are read. No input makes this module panic or allocate more than a small multiple of what the archive really holds.

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::Path;

use half::f16;
use ndarray::{ArrayD, IxDyn, ShapeBuilder};
use npyz::{DType, Deserialize, TypeChar, TypeRead, TypeStr};
use zip::{ZipArchive, read::ZipFile};

/// Longest text of an npy header that is read, in bytes; numpy has the same limit.
const HEADER_LIMIT: usize = 10_000;

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
    let file = path.display().to_string();
    match File::open(path) {
        Ok(reader) => read_from(BufReader::new(reader), &file),
        Err(error) => Err(NpzError { file, problem: NpzProblem::Io(error) }),
    }
}

/// Reads the attention inputs of the archive in `reader`, which `name` names in errors.
///
/// # Errors
/// As [`read`].
pub fn read_from(reader: impl Read + Seek, name: &str) -> Result<Inputs, NpzError> {
    inputs(reader).map_err(|problem| NpzError { file: name.to_owned(), problem })
}

fn inputs(mut reader: impl Read + Seek) -> Result<Inputs, NpzProblem> {
    let mut start = Vec::new();
    reader.by_ref().take(6).read_to_end(&mut start).map_err(NpzProblem::Io)?;
    if !start.starts_with(b"PK") {
        return Err(NpzProblem::NotAnArchive { start });
    }
    let mut archive = Archive { zip: ZipArchive::new(reader).map_err(|error| NpzProblem::Archive(error.to_string()))? };

    archive.require(&["q", "k", "v"], "q, k and v (numpy.savez(file, q=q, k=k, v=v))")?;
    let (query, key, value) = (archive.tensor("q")?, archive.tensor("k")?, archive.tensor("v")?);
    let (heads, kv_heads) = head_counts(&query.shape, &key.shape, &value.shape)?;
    let [queries, dim] = [2, 1].map(|back| query.shape[query.shape.len() - back]);
    let keys = key.shape[key.shape.len() - 2];

    let scales = ["q_scale", "k_scale", "v_scale"];
    let values = match (query.elements, key.elements, value.elements) {
        (Elements::Float(query), Elements::Float(key), Elements::Float(value)) => {
            if let Some(scale) = scales.into_iter().find(|scale| archive.contains(scale)) {
                return Err(NpzProblem::ScaleOfFloat { scale });
            }
            Values::Float(Qkv { query, key, value })
        }
        (Elements::Int8(query), Elements::Int8(key), Elements::Int8(value)) => {
            archive.require(&scales, "q_scale, k_scale and v_scale beside int8 arrays (a number, or one per head)")?;
            let scales = Qkv {
                query: archive.scales("q_scale", heads)?,
                key: archive.scales("k_scale", kv_heads)?,
                value: archive.scales("v_scale", kv_heads)?,
            };
            Values::Int8 { values: Qkv { query, key, value }, scales }
        }
        _ => return Err(NpzProblem::Mixed(Qkv { query: query.dtype, key: key.dtype, value: value.dtype })),
    };
    Ok(Inputs { heads, kv_heads, queries, keys, dim, query_shape: query.shape, values })
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

struct Archive<R: Read + Seek> {
    zip: ZipArchive<R>,
}

/// One of `q`, `k` and `v`, its elements in C order.
struct Tensor {
    dtype: String,
    shape: Vec<usize>,
    elements: Elements,
}

enum Elements {
    Float(Vec<f32>),
    Int8(Vec<i8>),
}

impl<R: Read + Seek> Archive<R> {
    fn contains(&self, array: &str) -> bool {
        self.zip.index_for_name(&format!("{array}.npy")).is_some()
    }

    fn require(&self, arrays: &[&'static str], expected: &'static str) -> Result<(), NpzProblem> {
        let Some(&array) = arrays.iter().find(|array| !self.contains(array)) else { return Ok(()) };
        let mut found: Vec<_> =
            self.zip.file_names().flatten().map(|file| file.strip_suffix(".npy").unwrap_or(&file).to_owned()).collect();
        found.sort();
        Err(NpzProblem::Missing { array, found, expected })
    }

    fn tensor(&mut self, name: &'static str) -> Result<Tensor, NpzProblem> {
        let array = self.array(name, "float16, float32, float64 or int8", |kind, size| {
            matches!((kind, size), (TypeChar::Float, 2 | 4 | 8) | (TypeChar::Int, 1))
        })?;
        let dtype = dtype_name(&array.dtype);
        if array.shape.len() < 2 {
            return Err(NpzProblem::TooFewDimensions { array: name, shape: array.shape });
        }
        if let Some(integers) = array.decode::<i8>()? {
            return Ok(Tensor { dtype, shape: array.shape, elements: Elements::Int8(integers) });
        }
        let wide = array.numbers()?;
        let narrow: Vec<f32> = wide.iter().map(|&x| x as f32).collect();
        match narrow.iter().position(|x| !x.is_finite()) {
            Some(flat) => {
                Err(NpzProblem::NotFinite { array: name, index: unravel(flat, &array.shape), got: wide[flat] })
            }
            None => Ok(Tensor { dtype, shape: array.shape, elements: Elements::Float(narrow) }),
        }
    }

    /// The scales of an int8 array of that many heads, one per head.
    fn scales(&mut self, name: &'static str, heads: usize) -> Result<Vec<f32>, NpzProblem> {
        let array =
            self.array(name, "a float (float16, float32, float64) or an integer (int32, int64)", |kind, size| {
                matches!((kind, size), (TypeChar::Float, 2 | 4 | 8) | (TypeChar::Int, 4 | 8))
            })?;
        let wide = array.numbers()?;
        if wide.len() != 1 && wide.len() != heads {
            return Err(NpzProblem::ScaleCount { scale: name, shape: array.shape, heads });
        }
        let mut scales: Vec<f32> = wide.iter().map(|&x| x as f32).collect();
        if let Some(flat) = scales.iter().position(|&x| !(x > 0.0 && x.is_finite())) {
            return Err(NpzProblem::Scale { scale: name, index: unravel(flat, &array.shape), got: wide[flat] });
        }
        if scales.len() == 1 {
            scales.resize(heads, scales[0]);
        }
        Ok(scales)
    }

    /// An array whose dtype is accepted; its shape has no zero and as many elements as there are bytes.
    fn array(
        &mut self,
        name: &'static str,
        expected: &'static str,
        accepts: impl Fn(TypeChar, u64) -> bool,
    ) -> Result<Array, NpzProblem> {
        let unreadable = |reason: String| NpzProblem::Array { array: name, reason };
        let mut member = self.member(name).map_err(unreadable)?;
        let size = member.size();
        let (header_bytes, header) = read_header(&mut member).map_err(unreadable)?;
        let Header { descr, fortran, shape } = header;

        let dtype = descr.parse::<TypeStr>().ok().filter(|dtype| accepts(dtype.type_char(), dtype.size_field()));
        let Some(dtype) = dtype else {
            let got = descr.parse().map_or_else(|_| descr.escape_debug().to_string(), |dtype| dtype_name(&dtype));
            return Err(NpzProblem::DType { array: name, got, expected });
        };
        if shape.contains(&0) {
            return Err(NpzProblem::Empty { array: name, shape });
        }
        // What the header claims is compared with what the archive claims, then with what is there: nothing is
        // allocated on the header's word.
        let claimed = shape.iter().fold(dtype.size_field(), |n, &d| n.saturating_mul(d as u64));
        let mut bytes = Vec::new();
        let mut held = size.saturating_sub(header_bytes);
        if held == claimed {
            // One byte more than there should be, so that the end is reached, where the checksum is compared.
            member
                .take(size - header_bytes + 1)
                .read_to_end(&mut bytes)
                .map_err(|error| unreadable(error.to_string()))?;
            held = bytes.len() as u64;
        }
        if held != claimed {
            return Err(NpzProblem::Length {
                array: name,
                dtype: dtype_name(&dtype),
                shape,
                got: held,
                expected: claimed,
            });
        }
        Ok(Array { name, dtype, fortran, shape, bytes })
    }

    fn member(&mut self, array: &str) -> Result<ZipFile<'_, R>, String> {
        self.zip.by_name(&format!("{array}.npy")).map_err(|error| error.to_string())
    }
}

/// One array of the archive: its bytes, as many as dtype and shape ask for.
struct Array {
    name: &'static str,
    dtype: TypeStr,
    fortran: bool,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Array {
    /// The elements in C order, or `None` when they are not of type `T`.
    fn decode<T: Deserialize + Clone>(&self) -> Result<Option<Vec<T>>, NpzProblem> {
        let Ok(reader) = T::reader(&DType::new_scalar(self.dtype.clone())) else { return Ok(None) };
        let unreadable = |reason: String| NpzProblem::Array { array: self.name, reason };
        let mut elements = Vec::with_capacity(self.shape.iter().product());
        let mut rest = &self.bytes[..];
        while !rest.is_empty() {
            elements.push(reader.read_one(&mut rest).map_err(|error| unreadable(error.to_string()))?);
        }
        if self.fortran {
            let elements = ArrayD::from_shape_vec(IxDyn(&self.shape).f(), elements);
            let elements = elements.map_err(|error| unreadable(error.to_string()))?;
            return Ok(Some(elements.iter().cloned().collect()));
        }
        Ok(Some(elements))
    }

    /// The elements of any accepted type but int8, in C order. Integers above 2^53 are rounded.
    fn numbers(&self) -> Result<Vec<f64>, NpzProblem> {
        fn wide<T>(elements: Vec<T>, widen: impl Fn(T) -> f64) -> Vec<f64> {
            elements.into_iter().map(widen).collect()
        }
        let (bytes, kind) = (self.dtype.size_field(), self.dtype.type_char());
        let elements = match (kind, bytes) {
            (TypeChar::Float, 2) => self.decode::<f16>()?.map(|x| wide(x, f64::from)),
            (TypeChar::Float, 4) => self.decode::<f32>()?.map(|x| wide(x, f64::from)),
            (TypeChar::Float, _) => self.decode::<f64>()?,
            (_, 4) => self.decode::<i32>()?.map(|x| wide(x, f64::from)),
            _ => self.decode::<i64>()?.map(|x| wide(x, |x| x as f64)),
        };
        elements.ok_or_else(|| NpzProblem::Array { array: self.name, reason: format!("dtype {}", self.dtype) })
    }
}

/// What the header of an npy file says.
struct Header {
    /// Type string such as `<f4`.
    descr: String,
    fortran: bool,
    shape: Vec<usize>,
}

/// Reads the header of an npy file and the number of bytes that it takes.
///
/// npyz has a reader of its own, but that panics on a shape whose product overflows, allocates what a length field asks
/// for and takes time exponential in nested brackets. numpy writes the one form that is read here.
fn read_header(reader: &mut impl Read) -> Result<(u64, Header), String> {
    let mut bytes = |count: usize| {
        let mut bytes = vec![0; count];
        let read = reader.read_exact(&mut bytes);
        read.map(|()| bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => "it ends within its header".to_owned(),
            _ => error.to_string(),
        })
    };
    let start = bytes(8)?;
    if !start.starts_with(b"\x93NUMPY") {
        return Err("it is not an npy file".to_owned());
    }
    let (length, start) = match start[6..] {
        [1, 0] => (bytes(2)?.iter().rev().fold(0, |n, &byte| n << 8 | usize::from(byte)), 10),
        [2 | 3, 0] => (bytes(4)?.iter().rev().fold(0, |n, &byte| n << 8 | usize::from(byte)), 12),
        _ => return Err(format!("npy version {}.{}, expected 1.0, 2.0 or 3.0", start[6], start[7])),
    };
    if length > HEADER_LIMIT {
        return Err(format!("its header has {length} bytes, expected at most {HEADER_LIMIT}"));
    }
    let text = String::from_utf8(bytes(length)?).map_err(|_| "its header is not text".to_owned())?;
    let header = parse_header(&text)
        .ok_or_else(|| format!("its header is {text:?}, expected descr, fortran_order and shape"))?;
    Ok(((start + length) as u64, header))
}

/// Parses `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`, its entries in any order.
fn parse_header(text: &str) -> Option<Header> {
    let entry = |key: &str| Some(text.split_once(&format!("'{key}':"))?.1.trim_start());
    let descr = match entry("descr")?.strip_prefix('\'') {
        Some(quoted) => quoted.split_once('\'')?.0,
        None => "structured",
    };
    let order = entry("fortran_order")?;
    let fortran = order.starts_with("True");
    let (shape, _) = entry("shape")?.strip_prefix('(')?.split_once(')')?;
    let lengths = shape.split(',').map(str::trim).filter(|length| !length.is_empty());
    Some(Header {
        descr: descr.to_owned(),
        fortran: (fortran || order.starts_with("False")).then_some(fortran)?,
        shape: lengths.map(|length| length.parse().ok()).collect::<Option<_>>()?,
    })
}

/// numpy's name of a type, such as `float32`.
fn dtype_name(dtype: &TypeStr) -> String {
    let bits = dtype.size_field().saturating_mul(8);
    match dtype.type_char() {
        TypeChar::Bool => "bool".to_owned(),
        TypeChar::Int => format!("int{bits}"),
        TypeChar::Uint => format!("uint{bits}"),
        TypeChar::Float => format!("float{bits}"),
        TypeChar::Complex => format!("complex{bits}"),
        TypeChar::Object => "object".to_owned(),
        _ => dtype.to_string(),
    }
}

/// Index of an element, given its place in C order.
fn unravel(mut flat: usize, shape: &[usize]) -> Vec<usize> {
    let mut index: Vec<_> = shape.iter().rev().map(|length| (flat % length, flat /= length).0).collect();
    index.reverse();
    index
}

/// An archive that could not be read as attention inputs; printed in one line.
#[derive(Debug)]
pub struct NpzError {
    /// Name of the file, or what [`read_from`] was given for it.
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
    /// An element is NaN or infinite, or a float64 beyond the range of float32.
    NotFinite {
        /// The array.
        array: &'static str,
        /// Index of the element.
        index: Vec<usize>,
        /// The element.
        got: f64,
    },
    /// There are scales although `q`, `k` and `v` are float.
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
        /// Number of heads.
        heads: usize,
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
}

impl Error for NpzError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.problem {
            NpzProblem::Io(error) => Some(error),
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
            Self::Array { array, reason } => write!(f, "cannot read array {array}: {reason}"),
            Self::Length { array, dtype, shape, got, expected } => write!(
                f,
                "{array} holds {got} bytes of data, expected {expected} for {dtype} of shape {}: write the archive again",
                Shape(shape),
            ),
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
                write!(f, "{scale} beside float arrays, expected none: leave it out, or store q, k and v as int8")
            }
            Self::ScaleCount { scale, shape, heads } => {
                write!(f, "{scale} has shape {}, expected one number or one per head ({heads})", Shape(shape))
            }
            Self::Scale { scale, index, got } => {
                write!(f, "{scale}{} is {got:?}, expected a positive and finite float32", Index(index))
            }
        }
    }
}

/// A shape as numpy prints it.
struct Shape<'a>(&'a [usize]);

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

//! Arrays of a zip archive: found, decoded and checked against what the archive really holds.

use std::io::{self, Read, Seek};

use half::f16;
use ndarray::{ArrayD, IxDyn, ShapeBuilder};
use npyz::{DType, Deserialize, TypeChar, TypeRead, TypeStr};
use zip::{ZipArchive, read::ZipFile};

use super::NpzProblem;
use crate::mask::BooleanMask;

/// Longest text of an npy header that is read, in bytes; numpy has the same limit.
const HEADER_LIMIT: usize = 10_000;

pub(super) struct Archive<R: Read + Seek> {
    zip: ZipArchive<R>,
}

impl<R: Read + Seek> Archive<R> {
    pub(super) fn open(mut reader: R) -> Result<Self, NpzProblem> {
        let mut start = Vec::new();
        reader.by_ref().take(6).read_to_end(&mut start).map_err(NpzProblem::Io)?;
        if !start.starts_with(b"PK") {
            return Err(NpzProblem::NotAnArchive { start });
        }
        let zip = ZipArchive::new(reader).map_err(|error| NpzProblem::Archive(error.to_string()))?;
        Ok(Self { zip })
    }

    pub(super) fn contains(&self, array: &str) -> bool {
        self.zip.index_for_name(&format!("{array}.npy")).is_some()
    }

    pub(super) fn require(&self, arrays: &[&'static str], expected: &'static str) -> Result<(), NpzProblem> {
        let Some(&array) = arrays.iter().find(|array| !self.contains(array)) else { return Ok(()) };
        let mut found: Vec<_> =
            self.zip.file_names().flatten().map(|file| file.strip_suffix(".npy").unwrap_or(&file).to_owned()).collect();
        found.sort();
        Err(NpzProblem::Missing { array, found, expected })
    }

    /// `q`, `k`, `v` or `out`, as its header has it.
    pub(super) fn tensor(&mut self, name: &'static str) -> Result<Array, NpzProblem> {
        self.array(
            name,
            "float16, float32, float64 or int8",
            |kind, size| matches!((kind, size), (TypeChar::Float, 2 | 4 | 8) | (TypeChar::Int, 1)),
            |shape| match shape.len() {
                0 | 1 => Err(NpzProblem::TooFewDimensions { array: name, shape: shape.to_vec() }),
                _ => Ok(()),
            },
        )
    }

    /// The integers of an int8 tensor, in C order.
    pub(super) fn integers(&mut self, tensor: &Array) -> Result<Vec<i8>, NpzProblem> {
        // In place.
        tensor.in_c_order(self.bytes(tensor)?.into_iter().map(|byte| byte as i8).collect())
    }

    /// The numbers of any other tensor, finite, in C order.
    pub(super) fn floats(&mut self, tensor: &Array) -> Result<Vec<f64>, NpzProblem> {
        let numbers = tensor.numbers(&self.bytes(tensor)?)?;
        check_finite(tensor.name, &tensor.shape, &numbers, f64::is_finite)?;
        Ok(numbers)
    }

    /// The array `mask`, for queries with these leading dimensions, as its header has it.
    pub(super) fn mask(&mut self, lead: &[usize], rows: [usize; 2]) -> Result<Array, NpzProblem> {
        self.array(
            "mask",
            "bool (true where a query sees a key)",
            |kind, size| matches!((kind, size), (TypeChar::Bool, 1)),
            |shape| {
                if BooleanMask::fits(shape, lead, rows) {
                    Ok(())
                } else {
                    Err(NpzProblem::Mask { shape: shape.to_vec(), expected: [lead, &rows].concat() })
                }
            },
        )
    }

    /// The mask itself, of the same dimensions.
    pub(super) fn broadcast(
        &mut self,
        mask: &Array,
        lead: &[usize],
        rows: [usize; 2],
    ) -> Result<BooleanMask, NpzProblem> {
        let elements = self.bytes(mask)?.into_iter().map(|byte| byte != 0).collect();
        let mask_of = BooleanMask::broadcast(mask.in_c_order(elements)?, &mask.shape, lead, rows);
        mask_of.ok_or_else(|| NpzProblem::Mask { shape: mask.shape.clone(), expected: [lead, &rows].concat() })
    }

    /// The scales of an int8 array with these leading dimensions, one per head.
    pub(super) fn scales(&mut self, name: &'static str, lead: &[usize]) -> Result<Vec<f32>, NpzProblem> {
        let heads = lead.iter().product();
        let array = self.array(
            name,
            "a float (float16, float32, float64) or an integer (int32, int64)",
            |kind, size| matches!((kind, size), (TypeChar::Float, 2 | 4 | 8) | (TypeChar::Int, 4 | 8)),
            // With the dimensions of the heads, kept as numpy's `keepdims` keeps the others, or flattened.
            |shape| {
                let fits = shape.iter().all(|&length| length == 1)
                    || [&[heads][..], lead, &[lead, &[1, 1]].concat()].contains(&shape);
                if fits {
                    Ok(())
                } else {
                    Err(NpzProblem::ScaleCount { scale: name, shape: shape.to_vec(), lead: lead.to_vec() })
                }
            },
        )?;
        let wide = array.numbers(&self.bytes(&array)?)?;
        let mut scales: Vec<f32> = wide.iter().map(|&x| x as f32).collect();
        if let Some(flat) = scales.iter().position(|&x| !(x > 0.0 && x.is_finite())) {
            return Err(NpzProblem::Scale { scale: name, index: unravel(flat, &array.shape), got: wide[flat] });
        }
        if scales.len() == 1 {
            scales.resize(heads, scales[0]);
        }
        Ok(scales)
    }

    /// An array whose header is accepted: its dtype, its shape, which has no zero, and its size, which is what the archive says.
    /// None of its data is read.
    fn array(
        &mut self,
        name: &'static str,
        expected: &'static str,
        accepts: impl Fn(TypeChar, u64) -> bool,
        fits: impl Fn(&[usize]) -> Result<(), NpzProblem>,
    ) -> Result<Array, NpzProblem> {
        let unreadable = |reason: String| NpzProblem::Array { array: name, reason };
        let mut member = self.member(name).map_err(unreadable)?;
        let (header_bytes, Header { descr, fortran, shape }) = read_header(&mut member).map_err(unreadable)?;

        let dtype = descr.parse::<TypeStr>().ok().filter(|dtype| accepts(dtype.type_char(), dtype.size_field()));
        let Some(dtype) = dtype else {
            let got = descr.parse().map_or_else(|_| descr.escape_debug().to_string(), |dtype| dtype_name(&dtype));
            return Err(NpzProblem::DType { array: name, got, expected });
        };
        if shape.contains(&0) {
            return Err(NpzProblem::Empty { array: name, shape });
        }
        fits(&shape)?;
        let held = member.size().saturating_sub(header_bytes);
        let array = Array { name, dtype, fortran, shape, header_bytes };
        if held == array.size() { Ok(array) } else { Err(array.length(held)) }
    }

    /// The data of an array, as many bytes as its header asks for: header and archive agree on that, and nothing is allocated on
    /// the word of the two.
    fn bytes(&mut self, array: &Array) -> Result<Vec<u8>, NpzProblem> {
        let mut member = self.member(array.name).map_err(|reason| array.unreadable(reason))?;
        let mut bytes = Vec::new();
        // One byte more than there should be, so that the end is reached, where the checksum is compared.
        let read = io::copy(&mut member.by_ref().take(array.header_bytes), &mut io::sink())
            .and_then(|_| member.take(array.size() + 1).read_to_end(&mut bytes));
        match read {
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => Err(array.too_large()),
            Err(error) => Err(array.unreadable(error.to_string())),
            Ok(held) if held as u64 == array.size() => Ok(bytes),
            Ok(held) => Err(array.length(held as u64)),
        }
    }

    fn member(&mut self, array: &str) -> Result<ZipFile<'_, R>, String> {
        self.zip.by_name(&format!("{array}.npy")).map_err(|error| error.to_string())
    }
}

/// One array of the archive, as its header has it.
pub(super) struct Array {
    name: &'static str,
    dtype: TypeStr,
    fortran: bool,
    pub(super) shape: Vec<usize>,
    header_bytes: u64,
}

impl Array {
    /// Whether it is int8, of all dtypes that a tensor may have.
    pub(super) fn is_int8(&self) -> bool {
        self.dtype.type_char() == TypeChar::Int
    }

    /// numpy's name of its dtype.
    pub(super) fn dtype(&self) -> String {
        dtype_name(&self.dtype)
    }

    /// Bytes of its data.
    fn size(&self) -> u64 {
        self.shape.iter().fold(self.dtype.size_field(), |n, &d| n.saturating_mul(d as u64))
    }

    /// Nothing yet, with room for all elements.
    fn room<T>(&self) -> Result<Vec<T>, NpzProblem> {
        let mut elements = Vec::new();
        let reserved = elements.try_reserve_exact(self.shape.iter().product());
        reserved.map(|()| elements).map_err(|_| self.too_large())
    }

    /// The elements in C order, converted; or `None` when they are not of type `T`.
    fn decode<T: Deserialize>(
        &self,
        mut bytes: &[u8],
        convert: impl Fn(T) -> f64,
    ) -> Result<Option<Vec<f64>>, NpzProblem> {
        let Ok(reader) = T::reader(&DType::new_scalar(self.dtype.clone())) else { return Ok(None) };
        let mut elements = self.room()?;
        while !bytes.is_empty() {
            elements.push(convert(reader.read_one(&mut bytes).map_err(|error| self.unreadable(error.to_string()))?));
        }
        self.in_c_order(elements).map(Some)
    }

    /// The elements as they are stored, in C order.
    fn in_c_order<T: Copy>(&self, elements: Vec<T>) -> Result<Vec<T>, NpzProblem> {
        if !self.fortran {
            return Ok(elements);
        }
        let mut ordered = self.room()?;
        let elements = ArrayD::from_shape_vec(IxDyn(&self.shape).f(), elements);
        ordered.extend(elements.map_err(|error| self.unreadable(error.to_string()))?.iter());
        Ok(ordered)
    }

    /// The elements of any accepted type but int8, in C order. Integers above 2^53 are rounded.
    fn numbers(&self, data: &[u8]) -> Result<Vec<f64>, NpzProblem> {
        let elements = match (self.dtype.type_char(), self.dtype.size_field()) {
            (TypeChar::Float, 2) => self.decode::<f16>(data, f64::from),
            (TypeChar::Float, 4) => self.decode::<f32>(data, f64::from),
            (TypeChar::Float, _) => self.decode::<f64>(data, |x| x),
            (_, 4) => self.decode::<i32>(data, f64::from),
            _ => self.decode::<i64>(data, |x| x as f64),
        };
        elements?.ok_or_else(|| self.unreadable(format!("dtype {}", self.dtype)))
    }

    /// Numbers of this array as float32.
    pub(super) fn narrow(&self, numbers: &[f64]) -> Result<Vec<f32>, NpzProblem> {
        check_finite(self.name, &self.shape, numbers, |x| (x as f32).is_finite())?;
        let mut narrow = self.room()?;
        narrow.extend(numbers.iter().map(|&x| x as f32));
        Ok(narrow)
    }

    fn unreadable(&self, reason: String) -> NpzProblem {
        NpzProblem::Array { array: self.name, reason }
    }

    fn too_large(&self) -> NpzProblem {
        NpzProblem::Memory { array: self.name, dtype: self.dtype(), shape: self.shape.clone() }
    }

    /// Not as many bytes of data as there should be.
    fn length(&self, got: u64) -> NpzProblem {
        let (dtype, shape) = (self.dtype(), self.shape.clone());
        NpzProblem::Length { array: self.name, dtype, shape, got, expected: self.size() }
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

fn check_finite(
    array: &'static str,
    shape: &[usize],
    elements: &[f64],
    finite: impl Fn(f64) -> bool,
) -> Result<(), NpzProblem> {
    match elements.iter().position(|&x| !finite(x)) {
        Some(flat) => Err(NpzProblem::NotFinite { array, index: unravel(flat, shape), got: elements[flat] }),
        None => Ok(()),
    }
}

/// Index of an element, given its place in C order.
fn unravel(mut flat: usize, shape: &[usize]) -> Vec<usize> {
    let mut index: Vec<_> = shape.iter().rev().map(|length| (flat % length, flat /= length).0).collect();
    index.reverse();
    index
}

//! Attention's output as an archive: `out` and `out_scale`.

use std::{
    io::{self, Cursor, Read, Seek, Write},
    path::Path,
};

use npyz::{AutoSerialize, WriterBuilder};
use zip::{CompressionMethod, DateTime, ZipWriter, write::SimpleFileOptions};

use super::{Archive, NpzError, NpzProblem, open};
use crate::file::{self, FileProblem};

/// What attention gave, `[.., queries, dim]`, leading dimensions are heads.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Shape of `out`: two dimensions or more, none of them zero.
    pub shape: Vec<usize>,
    /// The numbers, in C order.
    pub values: OutputValues,
}

/// The numbers of an [`Output`].
#[derive(Clone, Debug, PartialEq)]
pub enum OutputValues {
    /// Real numbers, all finite.
    Float(Vec<f64>),
    /// Integers, and what one step of them is worth: value = integer * scale.
    Int8 {
        /// The integers.
        values: Vec<i8>,
        /// One positive and finite scale per head.
        scales: Vec<f32>,
    },
}

impl Output {
    /// Product of the leading dimensions.
    #[must_use]
    pub fn heads(&self) -> usize {
        self.lead().iter().product()
    }

    fn lead(&self) -> &[usize] {
        &self.shape[..self.shape.len().saturating_sub(2)]
    }

    /// Reads `out` and, beside int8, `out_scale` from the archive at `path`.
    ///
    /// # Errors
    /// [`NpzError`] when the file cannot be read, or does not hold what the [module](super) asks for.
    pub fn read(path: &Path) -> Result<Self, NpzError> {
        let read = open(path).and_then(Self::from_archive);
        read.map_err(|problem| NpzError { file: path.display().to_string(), problem })
    }

    /// The same of the archive in `reader`, which `name` names in errors.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_from(reader: impl Read + Seek, name: &str) -> Result<Self, NpzError> {
        Self::from_archive(reader).map_err(|problem| NpzError { file: name.to_owned(), problem })
    }

    fn from_archive(reader: impl Read + Seek) -> Result<Self, NpzProblem> {
        const EXPECTED: &str = "out (and out_scale beside int8), as `attn run` writes them";
        const SCALE: &str = "out_scale";
        let mut archive = Archive::open(reader)?;
        archive.require(&["out"], EXPECTED)?;
        let tensor = archive.tensor("out")?;
        let lead = &tensor.shape[..tensor.shape.len() - 2];
        let values = if tensor.is_int8() {
            archive.require(&[SCALE], "out_scale beside an int8 out (a number, or one per head)")?;
            let scales = archive.scales(SCALE, lead)?;
            OutputValues::Int8 { values: archive.integers(&tensor)?, scales }
        } else if archive.contains(SCALE) {
            return Err(NpzProblem::ScaleOfFloat { scale: SCALE });
        } else {
            OutputValues::Float(archive.floats(&tensor)?)
        };
        Ok(Self { shape: tensor.shape, values })
    }

    /// Writes the archive to `path`, in place of a file that is there. The same output gives the same bytes.
    ///
    /// Either the whole file is there afterwards, or whatever was there before: it is written beside `path` and then
    /// renamed.
    ///
    /// # Errors
    /// [`NpzError`] when the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), NpzError> {
        let written = self.archive().map_err(FileProblem::Write).and_then(|archive| file::replace(path, &archive));
        written.map_err(|problem| NpzError { file: path.display().to_string(), problem: problem.into() })
    }

    /// The bytes of the archive. In memory: a `ZipWriter` that cannot write says so on stderr by itself.
    fn archive(&self) -> io::Result<Vec<u8>> {
        let bytes = match &self.values {
            OutputValues::Float(values) => size_of_val(&values[..]),
            OutputValues::Int8 { values, scales } => size_of_val(&values[..]) + size_of_val(&scales[..]),
        };
        // Two headers and the directory take less than a KiB, but for shapes that nobody has.
        let mut archive = ZipWriter::new(Cursor::new(Vec::with_capacity(bytes + 1024)));
        match &self.values {
            OutputValues::Float(values) => write_array(&mut archive, "out", &self.shape, values)?,
            OutputValues::Int8 { values, scales } => {
                write_array(&mut archive, "out", &self.shape, values)?;
                write_array(&mut archive, "out_scale", &[scales.len()], scales)?;
            }
        }
        Ok(archive.finish()?.into_inner())
    }
}

fn write_array<T: AutoSerialize + Copy>(
    archive: &mut ZipWriter<impl Write + Seek>,
    name: &str,
    shape: &[usize],
    elements: &[T],
) -> io::Result<()> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::DEFAULT)
        // A header takes far less than the last MiB.
        .large_file(size_of_val(elements) >= (1 << 32) - (1 << 20));
    archive.start_file(format!("{name}.npy"), options)?;
    let shape: Vec<u64> = shape.iter().map(|&length| length as u64).collect();
    let mut writer = npyz::WriteOptions::new().default_dtype().shape(&shape).writer(archive).begin_nd()?;
    writer.extend(elements.iter().copied())?;
    writer.finish()
}

//! Attention's output as an archive: `out` and `out_scale`.

use std::{
    fs,
    io::{self, Cursor, Read, Seek, Write},
    path::{Path, PathBuf},
};

use npyz::{AutoSerialize, WriterBuilder};
use tempfile::NamedTempFile;
use zip::{CompressionMethod, DateTime, ZipWriter, write::SimpleFileOptions};

use super::{Archive, NpzError, NpzProblem, open};

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
        let write = || -> Result<(), NpzProblem> {
            let archive = self.archive().map_err(NpzProblem::Write)?;
            let (target, part) = beside(path)?;
            let mut file = part.as_file();
            file.write_all(&archive).and_then(|()| file.sync_all()).map_err(NpzProblem::Write)?;
            part.persist(&target).map_err(|error| NpzProblem::Write(error.error))?;
            Ok(())
        };
        write().map_err(|problem| NpzError { file: path.display().to_string(), problem })
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

/// Checks that [`Output::write`] will be able to make a file at `path`, before the work whose result it is to hold.
///
/// # Errors
/// [`NpzError`] when it will not.
pub fn check_writable(path: &Path) -> Result<(), NpzError> {
    let checked = beside(path).map(drop);
    checked.map_err(|problem| NpzError { file: path.display().to_string(), problem })
}

/// A temporary file that can be renamed to the file that `path` names, and that file: links are followed.
fn beside(path: &Path) -> Result<(PathBuf, NamedTempFile), NpzProblem> {
    let replaced = match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => return Err(NpzProblem::NotAFile),
        Ok(metadata) if metadata.permissions().readonly() => {
            return Err(NpzProblem::Write(io::ErrorKind::PermissionDenied.into()));
        }
        Ok(metadata) => Some(metadata.permissions()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(NpzProblem::Write(error)),
    };
    let target = match (&replaced, fs::read_link(path)) {
        (Some(_), _) => fs::canonicalize(path).map_err(NpzProblem::Write)?,
        // A link to what is not there yet.
        (None, Ok(link)) => path.parent().unwrap_or(Path::new("")).join(link),
        (None, Err(_)) => path.to_owned(),
    };
    if target.file_name().is_none() || target.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Err(NpzProblem::NotAFile);
    }
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".attn-").suffix(".npz.part");
    // Not the private permissions of a temporary file: those of any new file, or of the one that it replaces.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let file = builder.tempfile_in(folder).map_err(|error| NpzProblem::Write(without_path(error)))?;
    if let Some(permissions) = replaced {
        file.as_file().set_permissions(permissions).map_err(NpzProblem::Write)?;
    }
    Ok((target, file))
}

/// What the system says, without the name of a temporary file, which tells nobody anything.
fn without_path(error: io::Error) -> io::Error {
    match error.to_string().split_once(" at path ") {
        Some((reason, _)) => io::Error::new(error.kind(), reason),
        None => error,
    }
}

//! Files that are complete or not there at all.

use std::{
    error::Error,
    fmt, fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

/// What is wrong with a file or the path of one.
#[derive(Debug)]
pub enum FileProblem {
    /// The file cannot be written.
    Write(io::Error),
    /// The path is that of a folder, a pipe or a device.
    NotAFile,
    /// The path is that of this file, which is read.
    Input(PathBuf),
}

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write(error) => {
                write!(f, "cannot write it: {error}: expected a path in a folder that can be written")
            }
            Self::NotAFile => f.write_str("is a folder, a pipe or a device, expected a file"),
            Self::Input(input) => write!(f, "got the input {}, expected another file", input.display()),
        }
    }
}

impl Error for FileProblem {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Write(error) => Some(error),
            Self::NotAFile | Self::Input(_) => None,
        }
    }
}

/// Writes a file of these bytes to `path`, in place of one that is there.
///
/// Either the whole file is there afterwards, or whatever was there before: it is written beside `path` and then renamed.
///
/// # Errors
/// [`FileProblem`] when it cannot be written.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), FileProblem> {
    let (target, part) = beside(path)?;
    let mut file = part.as_file();
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(FileProblem::Write)?;
    part.persist(&target).map_err(|error| FileProblem::Write(error.error))?;
    Ok(())
}

/// Checks that [`replace`] will be able to make a file at `path`, before the work whose result it is to hold.
///
/// # Errors
/// [`FileProblem`] when it will not.
pub fn check_writable(path: &Path) -> Result<(), FileProblem> {
    beside(path).map(drop)
}

/// Checks that [`replace`] would make a file of its own at `path`, in place of none of these, which are read; links are followed.
///
/// # Errors
/// [`FileProblem::Input`] with the one that it is.
pub fn check_other(path: &Path, inputs: impl IntoIterator<Item = PathBuf>) -> Result<(), FileProblem> {
    let Some(output) = identity(path) else { return Ok(()) };
    let same = inputs.into_iter().find(|input| identity(input).is_some_and(|input| input == output));
    same.map_or(Ok(()), |input| Err(FileProblem::Input(input)))
}

/// What paths of the same file have in common, if there is one.
#[cfg(unix)]
fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata(path).map(|file| (file.dev(), file.ino())).ok()
}

/// What paths of the same file have in common, if there is one.
#[cfg(not(unix))]
fn identity(path: &Path) -> Option<PathBuf> {
    fs::canonicalize(path).ok()
}

/// A temporary file that can be renamed to the file that `path` names, and that file: links are followed.
fn beside(path: &Path) -> Result<(PathBuf, NamedTempFile), FileProblem> {
    let replaced = match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => return Err(FileProblem::NotAFile),
        Ok(metadata) if metadata.permissions().readonly() => {
            return Err(FileProblem::Write(io::ErrorKind::PermissionDenied.into()));
        }
        Ok(metadata) => Some(metadata.permissions()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(FileProblem::Write(error)),
    };
    let mut target = path.to_owned();
    if replaced.is_some() {
        target = fs::canonicalize(path).map_err(FileProblem::Write)?;
    } else {
        // Links to what is not there yet: in a circle there would be another error.
        while let Ok(link) = fs::read_link(&target) {
            target = target.parent().unwrap_or(Path::new("")).join(link);
        }
    }
    if target.file_name().is_none() || target.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Err(FileProblem::NotAFile);
    }
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".attn-").suffix(".part");
    // Not the private permissions of a temporary file: those of any new file, or of the one that it replaces.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let file = builder.tempfile_in(folder).map_err(|error| FileProblem::Write(without_path(error)))?;
    if let Some(permissions) = replaced {
        file.as_file().set_permissions(permissions).map_err(FileProblem::Write)?;
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

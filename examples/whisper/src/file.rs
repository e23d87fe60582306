//! Files that are complete or not there at all.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

use tempfile::Builder;

use crate::error::Error;

/// Writes a file beside `path` and renames it to that.
///
/// # Errors
/// What the system says.
pub(crate) fn replace(path: &Path, write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>) -> Result<(), Error> {
    let replace = || {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut builder = Builder::new();
        builder.prefix(".attn-").suffix(".part");
        // Not the private permissions of a temporary file.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(folder)?;
        let mut writer = BufWriter::new(file.as_file());
        write(&mut writer)?;
        writer.flush()?;
        drop(writer);
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    replace().map_err(|error: io::Error| Error::File { file: path.to_owned(), what: error.to_string() })
}

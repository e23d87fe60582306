//! Calling the `attn` command, and archives for it.
#![allow(dead_code, reason = "each test program uses a part")]

use std::{
    io::Write,
    path::Path,
    process::{Command, Output},
};

pub(crate) fn attn(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_attn")).args(arguments).output().expect("the attn command starts")
}

pub(crate) fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("UTF-8")
}

pub(crate) fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("UTF-8")
}

/// One line on stderr that contains all these, status 2, nothing on stdout.
#[track_caller]
pub(crate) fn assert_usage_error(arguments: &[&str], expected: &[&str]) {
    let output = attn(arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
    assert!(output.stdout.is_empty(), "{arguments:?}");
    assert_eq!(stderr(&output).lines().count(), 1, "{arguments:?}: {}", stderr(&output));
    for part in expected {
        assert!(stderr(&output).contains(part), "{arguments:?}: {:?} does not contain {part:?}", stderr(&output));
    }
}

pub(crate) fn fixture(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name).display().to_string()
}

/// Name, dtype, shape and bytes of an array.
pub(crate) type Array<'a> = (&'a str, &'a str, &'a str, &'a [u8]);

/// A stored archive.
pub(crate) fn archive(arrays: &[Array<'_>]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::with_suffix(".npz").expect("a temporary file");
    let mut archive = zip::ZipWriter::new(&file);
    for (name, dtype, shape, bytes) in arrays {
        let header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}\n");
        archive.start_file(format!("{name}.npy"), zip::write::SimpleFileOptions::default()).expect("a member");
        archive.write_all(b"\x93NUMPY\x01\x00").expect("written");
        archive.write_all(&(header.len() as u16).to_le_bytes()).expect("written");
        archive.write_all(header.as_bytes()).expect("written");
        archive.write_all(bytes).expect("written");
    }
    archive.finish().expect("written");
    file
}

pub(crate) fn path_of(file: &tempfile::NamedTempFile) -> String {
    file.path().display().to_string()
}

//! Calling the `attn` command, and archives for it.
#![allow(dead_code, reason = "each test program uses a part")]

use std::{
    io::{Cursor, Write},
    path::Path,
    process::{Command, Output},
};

use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

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
    let mut file = tempfile::NamedTempFile::with_suffix(".npz").expect("a temporary file");
    file.write_all(&archive_bytes(arrays)).expect("written");
    file
}

/// The bytes of a stored archive.
pub(crate) fn archive_bytes(arrays: &[Array<'_>]) -> Vec<u8> {
    let members: Vec<_> = arrays
        .iter()
        .map(|(name, dtype, shape, bytes)| {
            let header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}\n");
            (format!("{name}.npy"), npy(&header, bytes))
        })
        .collect();
    zip_of(&members)
}

/// An npy file of version 1.0.
pub(crate) fn npy(header: &str, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(header.len()).expect("a short header");
    [b"\x93NUMPY\x01\x00", &length.to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// A zip archive of these members, stored.
pub(crate) fn zip_of(members: &[(impl AsRef<str>, impl AsRef<[u8]>)]) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, content) in members {
        archive.start_file(name.as_ref(), options).expect("a member");
        archive.write_all(content.as_ref()).expect("written");
    }
    archive.finish().expect("written").into_inner()
}

pub(crate) fn path_of(file: &tempfile::NamedTempFile) -> String {
    file.path().display().to_string()
}

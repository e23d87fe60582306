//! `attn::npz` on archives written by numpy (`tests/npz/make.py`), and on changed ones. `tests/hostile` has those that are refused.

use std::fmt::Debug;
use std::io::{Cursor, Read, Write};
use std::path::PathBuf;

use attn::{
    mask::BooleanMask,
    npz::{self, Inputs, Qkv, Values},
};
use proptest::prelude::*;
use zip::{ZipArchive, ZipWriter, write::SimpleFileOptions};

fn path(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/npz")).join(name)
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap()
}

fn load(name: &str) -> Inputs {
    npz::read(&path(&format!("{name}.npz"))).unwrap()
}

/// The message for damaged bytes, without the name of the file.
fn message(bytes: &[u8]) -> String {
    let message = npz::read_from(Cursor::new(bytes), "x.npz").unwrap_err().to_string();
    message.strip_prefix("x.npz: ").unwrap().to_owned()
}

/// `make.py`'s tensors, of these numbers of elements.
fn tensors<T>(query: usize, key: usize, convert: impl Fn(i8) -> T) -> Qkv<Vec<T>> {
    let tensor = |step, length| (0..length).map(|i| convert((step * i % 29) as i8 - 14)).collect();
    Qkv { query: tensor(3, query), key: tensor(5, key), value: tensor(7, key) }
}

/// Checks shape and float values of an archive of 3 queries, 5 keys and d = 8.
#[track_caller]
fn expect_floats(name: &str, heads: usize, kv_heads: usize, query_shape: &[usize]) {
    let values = Values::Float(tensors(heads * 24, kv_heads * 40, |x| f32::from(x) / 4.0));
    let expected =
        Inputs { heads, kv_heads, queries: 3, keys: 5, dim: 8, query_shape: query_shape.to_vec(), mask: None, values };
    assert_eq!(load(name), expected, "{name}");
}

#[track_caller]
fn expect_int8(name: &str, query_shape: &[usize], query: &[f32], key: &[f32], value: &[f32]) {
    let (heads, kv_heads) = (query.len(), key.len());
    let values = tensors(heads * 24, kv_heads * 40, |x| x);
    let scales = Qkv { query: query.to_vec(), key: key.to_vec(), value: value.to_vec() };
    let values = Values::Int8 { values, scales };
    let expected =
        Inputs { heads, kv_heads, queries: 3, keys: 5, dim: 8, query_shape: query_shape.to_vec(), mask: None, values };
    assert_eq!(load(name), expected, "{name}");
}

#[test]
fn floats_of_every_width() {
    for name in ["float16", "float32", "float64", "float_widths", "versions", "other_arrays"] {
        expect_floats(name, 1, 1, &[3, 8]);
    }
}

#[test]
fn int8_with_a_number_or_one_scale_per_head() {
    expect_int8("int8_numbers", &[3, 8], &[0.5], &[0.25], &[0.125]);
    expect_int8("int8_python_ones", &[3, 8], &[1.0], &[1.0], &[1.0]);
    expect_int8("int8_one_element", &[2, 3, 8], &[0.5; 2], &[0.25; 2], &[0.125; 2]);
    expect_int8("int8_per_head", &[4, 3, 8], &[0.5, 1.0, 2.0, 4.0], &[0.25, 3.0], &[0.125, 5.0]);
}

#[test]
fn leading_dimensions_and_grouped_heads() {
    expect_floats("leading_4d", 4, 4, &[2, 2, 3, 8]);
    expect_floats("grouped", 8, 4, &[2, 4, 3, 8]);
    expect_floats("grouped_3d", 4, 2, &[4, 3, 8]);
    expect_floats("one_kv_head", 4, 1, &[2, 2, 3, 8]);
}

#[test]
fn any_order_of_elements_and_bytes() {
    expect_floats("fortran", 2, 2, &[2, 3, 8]);
    expect_int8("fortran_int8", &[2, 4, 3, 8], &[0.5; 8], &[1.0, 2.0, 3.0, 4.0], &[0.125; 4]);
    expect_floats("big_endian", 2, 2, &[2, 3, 8]);
    expect_floats("big_endian_widths", 1, 1, &[3, 8]);
    expect_int8("big_endian_scales", &[3, 8], &[0.5], &[1.0], &[0.125]);
}

#[test]
fn compressed() {
    expect_floats("compressed", 2, 2, &[2, 3, 8]);
    expect_int8("compressed_int8", &[3, 8], &[0.5], &[0.25], &[0.125]);
}

#[test]
fn masks() {
    let third = |count: usize| (0..count).map(|i| i.is_multiple_of(3)).collect();
    let mask = |name| load(name).mask.expect("a mask");
    assert_eq!(mask("mask"), BooleanMask::broadcast(third(10), &[2, 1, 1, 5], &[2, 2], [3, 5]).expect("fits"));
    assert_eq!(mask("mask_compressed"), BooleanMask::broadcast(third(15), &[3, 5], &[], [3, 5]).expect("fits"));
}

#[test]
fn errors_name_the_file() {
    let error = npz::read("none/at/all.npz".as_ref()).unwrap_err();
    assert!(error.to_string().starts_with("none/at/all.npz: cannot read it: "), "{error}");
    assert!(std::error::Error::source(&error).is_some());
}

#[test]
fn truncated_archives_are_refused() {
    for name in ["float32.npz", "compressed_int8.npz"] {
        let whole = bytes(name);
        for length in 2..whole.len() {
            let message = message(&whole[..length]);
            assert!(message.starts_with("the archive is truncated or damaged ("), "{name} cut to {length}: {message}");
        }
    }
}

/// Reads without a panic; whatever is accepted has the elements that its shape asks for.
fn read_any(bytes: &[u8]) {
    fn lengths<T: Debug>(tensors: &Qkv<Vec<T>>) -> [usize; 3] {
        [tensors.query.len(), tensors.key.len(), tensors.value.len()]
    }
    match npz::read_from(Cursor::new(bytes), "x.npz") {
        Ok(inputs) => {
            let lengths = match &inputs.values {
                Values::Float(values) => lengths(values),
                Values::Int8 { values, .. } => lengths(values),
            };
            let kv = inputs.kv_heads * inputs.keys * inputs.dim;
            assert_eq!(lengths, [inputs.heads * inputs.queries * inputs.dim, kv, kv]);
        }
        Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
    }
}

#[test]
fn no_changed_byte_makes_it_panic() {
    for name in ["float16.npz", "int8_per_head.npz", "compressed_int8.npz", "bad_dtype_structured.npz"] {
        let mut bytes = bytes(name);
        for at in 0..bytes.len() {
            let original = bytes[at];
            for changed in [original ^ 1, original ^ 0x80, !original, 0, 0xff, b'(', b'\n'] {
                bytes[at] = changed;
                read_any(&bytes);
            }
            bytes[at] = original;
        }
    }
}

/// The members of an archive: file names and contents.
fn members(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = ZipArchive::new(Cursor::new(archive)).unwrap();
    let count = archive.len();
    let member = |index| {
        let mut member = archive.by_index(index).unwrap();
        let mut content = Vec::new();
        member.read_to_end(&mut content).unwrap();
        (member.name().unwrap().into_owned(), content)
    };
    (0..count).map(member).collect()
}

fn archive_of(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in members {
        archive.start_file(name, SimpleFileOptions::default()).unwrap();
        archive.write_all(content).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

#[test]
fn headers_are_read_up_to_their_limit() {
    let padded = |length: usize| {
        let mut members = members(&bytes("float32.npz"));
        for (_, content) in &mut members {
            // Spaces before the newline at its end; version 1.0 has its length in two bytes.
            let old = usize::from(u16::from_le_bytes([content[8], content[9]]));
            let end = 10 + old - 1;
            content.splice(end..end, vec![b' '; length - old]);
            content[8..10].copy_from_slice(&(length as u16).to_le_bytes());
        }
        archive_of(&members)
    };
    for length in [300, 10_000] {
        assert_eq!(npz::read_from(Cursor::new(padded(length)), "x.npz").unwrap(), load("float32"), "{length}");
    }
    assert_eq!(
        message(&padded(10_001)),
        "cannot read array q: its header has 10001 bytes, expected at most 10000: write the archive again with numpy.savez"
    );
}

const CHANGED: [&str; 5] = ["mask.npz", "fortran_int8.npz", "big_endian.npz", "compressed.npz", "versions.npz"];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1000, ..ProptestConfig::default() })]

    /// Within the archive, where a change of length would be noticed before all else.
    #[test]
    fn no_overwritten_bytes_make_it_panic(
        name in prop::sample::select(&CHANGED[..]),
        place in any::<prop::sample::Index>(),
        run in prop::collection::vec(any::<u8>(), 1..12),
    ) {
        let mut bytes = bytes(name);
        let start = place.index(bytes.len() - run.len());
        bytes[start..start + run.len()].copy_from_slice(&run);
        read_any(&bytes);
    }

    /// Within the header of an array, in an archive that is sound.
    #[test]
    fn no_changed_header_makes_it_panic(
        name in prop::sample::select(&CHANGED[..]),
        array in any::<prop::sample::Index>(),
        place in 0usize..80,
        insert in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..6),
            "[0-9(), '<>|fib]{0,6}".prop_map(String::into_bytes),
        ],
        remove in 0usize..6,
    ) {
        let mut members = members(&bytes(name));
        let content = &mut array.get_mut(&mut members[..]).1;
        content.splice(place..place + remove, insert);
        read_any(&archive_of(&members));
    }
}

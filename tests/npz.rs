//! `attn::npz` on archives written by numpy (`tests/npz/make.py`), on damaged ones and on hostile ones.

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

const BAD: &[(&str, &str)] = &[
    (
        "bad_single.npy",
        "this is a single .npy array, expected an .npz archive: write it with numpy.savez(file, q=q, k=k, v=v)",
    ),
    (
        "bad_empty_archive.npz",
        "no array q: the archive holds nothing, expected q, k and v (numpy.savez(file, q=q, k=k, v=v))",
    ),
    (
        "bad_no_value.npz",
        "no array v: the archive holds k, q, values, expected q, k and v (numpy.savez(file, q=q, k=k, v=v))",
    ),
    (
        "bad_positional.npz",
        "no array q: the archive holds arr_0, arr_1, arr_2, expected q, k and v (numpy.savez(file, q=q, k=k, v=v))",
    ),
    (
        "bad_names.npz",
        r"no array q: the archive holds line\n00, line\n01, line\n02, line\n03, line\n04, line\n05, line\n06, line\n07, line\n08, line\n09 and 2 more, expected q, k and v (numpy.savez(file, q=q, k=k, v=v))",
    ),
    ("bad_dtype_int32.npz", "k is int32, expected float16, float32, float64 or int8"),
    ("bad_dtype_uint8.npz", "k is uint8, expected float16, float32, float64 or int8"),
    ("bad_dtype_complex.npz", "k is complex64, expected float16, float32, float64 or int8"),
    ("bad_dtype_bool.npz", "k is bool, expected float16, float32, float64 or int8"),
    ("bad_dtype_object.npz", "k is object, expected float16, float32, float64 or int8"),
    ("bad_dtype_string.npz", "k is <U2, expected float16, float32, float64 or int8"),
    ("bad_dtype_structured.npz", "k is structured, expected float16, float32, float64 or int8"),
    ("bad_dtype_longdouble.npz", "k is float128, expected float16, float32, float64 or int8"),
    ("bad_dtype_void.npz", "k is |V2, expected float16, float32, float64 or int8"),
    ("bad_mixed.npz", "q is float32, k is float32 and v is int8, expected all three float or all three int8"),
    ("bad_0d.npz", "q has shape (), expected two dimensions or more, [.., sequence, d]"),
    ("bad_1d.npz", "q has shape (8,), expected two dimensions or more, [.., sequence, d]"),
    ("bad_no_keys.npz", "k has shape (0, 8), expected no dimension of zero"),
    ("bad_key_value.npz", "k has shape (2, 8) and v has shape (3, 8), expected equal shapes"),
    ("bad_d.npz", "q has shape (1, 8) and k has shape (1, 16), expected equal last dimensions"),
    (
        "bad_heads.npz",
        "q has shape (4, 1, 8) and k has shape (3, 1, 8), expected q's heads to be a multiple of k's and the dimensions before them to agree",
    ),
    (
        "bad_batch.npz",
        "q has shape (2, 4, 1, 8) and k has shape (4, 2, 1, 8), expected q's heads to be a multiple of k's and the dimensions before them to agree",
    ),
    (
        "bad_batch_missing.npz",
        "q has shape (2, 4, 1, 8) and k has shape (4, 1, 8), expected q's heads to be a multiple of k's and the dimensions before them to agree",
    ),
    (
        "bad_more_kv_heads.npz",
        "q has shape (1, 8) and k has shape (2, 1, 8), expected q's heads to be a multiple of k's and the dimensions before them to agree",
    ),
    ("bad_nan.npz", "q[1, 3] is NaN, expected a finite number"),
    ("bad_nan_fortran.npz", "q[1, 3] is NaN, expected a finite number"),
    ("bad_infinity.npz", "v[4, 7] is -inf, expected a finite number"),
    ("bad_overflow.npz", "k[2, 0] is 1e39, expected at most 3.4028235e38, the largest float32"),
    (
        "bad_scale_missing.npz",
        "no array k_scale: the archive holds k, q, q_scale, v, v_scale, expected q_scale, k_scale and v_scale beside int8 arrays (a number, or one per head)",
    ),
    ("bad_mask_dtype.npz", "mask is int64, expected bool (true where a query sees a key)"),
    ("bad_mask_shape.npz", "mask has shape (5, 3), expected one that broadcasts to (3, 5): [.., queries, keys]"),
    (
        "bad_mask_transposed_heads.npz",
        "mask has shape (2, 4, 3, 5), expected one that broadcasts to (4, 2, 3, 5): [.., queries, keys]",
    ),
    (
        "bad_mask_dimensions.npz",
        "mask has shape (1, 1, 1, 3, 5), expected one that broadcasts to (3, 5): [.., queries, keys]",
    ),
    ("bad_mask_empty.npz", "mask has shape (0, 5), expected no dimension of zero"),
    ("bad_scale_of_float.npz", "k_scale beside float arrays, expected none: leave it out, or store the arrays as int8"),
    ("bad_scale_count.npz", "k_scale has shape (3,), expected one number or one per head: (2,)"),
    ("bad_scale_kv_count.npz", "v_scale has shape (4,), expected one number or one per head: (2,)"),
    (
        "bad_scale_dtype.npz",
        "q_scale is <U3, expected a float (float16, float32, float64) or an integer (int32, int64)",
    ),
    ("bad_scale_empty.npz", "q_scale has shape (0,), expected no dimension of zero"),
    ("bad_scale_zero.npz", "k_scale is 0.0, expected a positive and finite float32"),
    ("bad_scale_negative.npz", "k_scale[1] is -0.5, expected a positive and finite float32"),
    ("bad_scale_nan.npz", "v_scale is NaN, expected a positive and finite float32"),
    ("bad_scale_infinity.npz", "q_scale[0] is inf, expected a positive and finite float32"),
    ("bad_scale_underflow.npz", "q_scale is 1e-50, expected a positive and finite float32"),
    ("bad_scale_overflow.npz", "q_scale is 1e50, expected a positive and finite float32"),
    (
        "bad_member_empty.npz",
        "cannot read array q: it ends within its header: write the archive again with numpy.savez",
    ),
    ("bad_member_text.npz", "cannot read array q: it is not an npy file: write the archive again with numpy.savez"),
    (
        "bad_member_version.npz",
        "cannot read array q: npy version 9.0, expected 1.0, 2.0 or 3.0: write the archive again with numpy.savez",
    ),
    (
        "bad_member_header_cut.npz",
        "cannot read array q: it ends within its header: write the archive again with numpy.savez",
    ),
    (
        "bad_member_header.npz",
        r#"cannot read array q: its header is "{'descr': '<f4', 'shape': (1, 8)}\n", expected descr, fortran_order and shape: write the archive again with numpy.savez"#,
    ),
    (
        "bad_member_negative.npz",
        r#"cannot read array q: its header is "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 8), }\n", expected descr, fortran_order and shape: write the archive again with numpy.savez"#,
    ),
    (
        "bad_member_beyond_u64.npz",
        r#"cannot read array q: its header is "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 8), }\n", expected descr, fortran_order and shape: write the archive again with numpy.savez"#,
    ),
    (
        "bad_member_short.npz",
        "q holds 31 bytes of data, expected 32 for float32 of shape (1, 8): write the archive again",
    ),
    (
        "bad_member_long.npz",
        "q holds 36 bytes of data, expected 32 for float32 of shape (1, 8): write the archive again",
    ),
    (
        "bad_member_huge.npz",
        "q holds 32 bytes of data, expected 35184372088832 for float32 of shape (1099511627776, 8): write the archive again",
    ),
    (
        "bad_member_overflow.npz",
        "q holds 32 bytes of data, expected 18446744073709551615 for float32 of shape (4611686018427387904, 4, 4): write the archive again",
    ),
    (
        "bad_member_header_length.npz",
        "cannot read array q: its header has 4294967295 bytes, expected at most 10000: write the archive again with numpy.savez",
    ),
];

#[test]
fn bad_archives_are_refused_in_one_line() {
    for &(name, expected) in BAD {
        let message = message(&bytes(name));
        assert_eq!(message, expected, "{name}");
        assert!(!message.contains('\n'), "{name}");
    }
}

#[test]
fn every_bad_archive_has_its_message() {
    let mut files: Vec<_> = std::fs::read_dir(path("")).unwrap().map(|file| file.unwrap().file_name()).collect();
    files.retain(|file| file.to_string_lossy().starts_with("bad_"));
    // The header of this one is quoted in full; see `nested_brackets_are_refused_at_once`.
    files.retain(|file| file != "bad_member_brackets.npz");
    files.sort();
    let mut tested: Vec<_> = BAD.iter().map(|(name, _)| *name).collect();
    tested.sort_unstable();
    assert_eq!(files, tested);
}

#[test]
fn nested_brackets_are_refused_at_once() {
    let message = message(&bytes("bad_member_brackets.npz"));
    assert!(message.starts_with("cannot read array q: its header is \"[[["), "{message}");
}

#[test]
fn errors_name_the_file() {
    let error = npz::read("none/at/all.npz".as_ref()).unwrap_err();
    assert!(error.to_string().starts_with("none/at/all.npz: cannot read it: "), "{error}");
    assert!(std::error::Error::source(&error).is_some());

    let directory = tempfile::tempdir().unwrap();
    let error = npz::read(directory.path()).unwrap_err();
    assert!(error.to_string().starts_with(&format!("{}: cannot read it: ", directory.path().display())), "{error}");

    let empty = directory.path().join("empty.npz");
    std::fs::write(&empty, "").unwrap();
    let error = npz::read(&empty).unwrap_err();
    assert_eq!(error.to_string(), format!("{}: the file is empty, expected an .npz archive", empty.display()));
}

#[test]
fn text_is_not_an_archive() {
    assert_eq!(message(b"\xffq,k,v\n1,2,3\n"), r#"not an .npz archive: it starts with "\xffq,k,v", expected "PK""#);
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

/// Positions of `pattern`.
fn find(bytes: &[u8], pattern: &[u8]) -> Vec<usize> {
    (0..bytes.len()).filter(|&at| bytes[at..].starts_with(pattern)).collect()
}

const CENTRAL_HEADER: &[u8] = b"PK\x01\x02";

#[test]
fn damaged_data_fails_its_checksum() {
    let mut archive = bytes("float32.npz");
    // The last byte of the first member, before the second local header.
    let end = find(&archive, b"PK\x03\x04")[1];
    archive[end - 1] ^= 1;
    assert_eq!(message(&archive), "cannot read array q: Invalid checksum: write the archive again with numpy.savez");
}

#[test]
fn encrypted_arrays_are_refused() {
    let mut archive = bytes("float32.npz");
    let first = find(&archive, CENTRAL_HEADER)[0];
    archive[first + 8] |= 1;
    assert_eq!(
        message(&archive),
        "cannot read array q: unsupported Zip archive: Password required to decrypt file: write the archive again with numpy.savez"
    );
}

#[test]
fn a_size_that_the_archive_exaggerates_is_not_believed() {
    let mut archive = bytes("compressed.npz");
    let first = find(&archive, CENTRAL_HEADER)[0];
    archive[first + 24] ^= 1;
    assert_eq!(
        message(&archive),
        "q holds 193 bytes of data, expected 192 for float32 of shape (2, 3, 8): write the archive again"
    );

    // Header and archive agree on 4 294 944 000 bytes; there are 32.
    let mut archive = bytes("bad_member_huge.npz");
    let shape = find(&archive, b"1099511627776, 8")[0];
    archive[shape..shape + 16].copy_from_slice(b"0000134217000, 8");
    let query = find(&archive, b"q.npy")[1] - 46;
    let size = &mut archive[query + 24..query + 28];
    let header = u32::from_le_bytes((&*size).try_into().unwrap()) - 32;
    size.copy_from_slice(&(134_217_000 * 32 + header).to_le_bytes());
    assert_eq!(message(&archive), "cannot read array q: Invalid checksum: write the archive again with numpy.savez");
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

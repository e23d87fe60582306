//! Archives that `attn run` and `attn validate` refuse, and outputs that `attn compare` does.

use std::{
    ffi::OsStr,
    fs,
    io::{Cursor, Write as _},
    os::unix::{ffi::OsStrExt, fs::symlink},
    sync::LazyLock,
};

use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use crate::{
    common::{Array, archive_bytes, fixture, npy, zip_of},
    runner::{Case, case, pipe, refuse},
};

const ONE: [u8; 4] = 1.0_f32.to_le_bytes();
const TENSOR: [u8; 32] = [3; 32];

/// One head of 4 queries and 4 keys, d = 8.
const GOOD: [Array<'_>; 6] = [
    ("q", "|i1", "(4, 8)", &TENSOR),
    ("k", "|i1", "(4, 8)", &TENSOR),
    ("v", "|i1", "(4, 8)", &TENSOR),
    ("q_scale", "<f4", "()", &ONE),
    ("k_scale", "<f4", "()", &ONE),
    ("v_scale", "<f4", "()", &ONE),
];

/// [`GOOD`] with these arrays in place of its own.
fn with(arrays: &[Array<'_>]) -> Vec<u8> {
    let kept = GOOD.iter().filter(|(name, ..)| arrays.iter().all(|(changed, ..)| changed != name));
    archive_bytes(&kept.chain(arrays).copied().collect::<Vec<_>>())
}

/// What both commands take.
pub(crate) fn good() -> Vec<u8> {
    archive_bytes(&GOOD)
}

/// Both commands refuse it.
fn input(name: &str, bytes: &[u8], message: &str) -> [Case; 2] {
    ["run --input in.npz --output out.npz", "validate --input in.npz"].map(|command| {
        let (program, _) = command.split_once(' ').expect("two words");
        case(format!("{program}: {name}"), command, format!("in.npz: {message}")).file("in.npz", bytes)
    })
}

pub(crate) fn cases() -> Vec<Case> {
    let parts = [
        files(),
        cut(),
        containers(),
        bombs(),
        by_numpy(),
        headers(),
        dtypes(),
        numbers(),
        shapes(),
        scales(),
        masks(),
    ];
    parts.into_iter().flatten().chain(no_outputs()).collect()
}

macro_rules! tests {
    ($($part:ident => $test:ident),+ $(,)?) => {
        $(#[test]
        fn $test() {
            refuse(&$part());
        })+
    };
}

tests! {
    files => files_that_are_no_archives,
    cut => archives_that_are_cut_off,
    containers => archives_that_lie,
    bombs => archives_that_are_larger_than_memory,
    by_numpy => what_numpy_wrote_badly_on_purpose,
    headers => headers_that_numpy_would_not_write,
    dtypes => dtypes_that_are_not_read,
    numbers => numbers_that_are_none,
    shapes => shapes_that_attention_has_no_form_for,
    scales => scales_out_of_range,
    masks => masks_that_do_not_fit,
    no_outputs => what_is_no_output_is_not_compared,
}

/// Where each of these signatures begins.
fn find(bytes: &[u8], signature: &[u8]) -> Vec<usize> {
    (0..bytes.len()).filter(|&at| bytes[at..].starts_with(signature)).collect()
}

const LOCAL: &[u8] = b"PK\x03\x04";
const CENTRAL: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";

/// Bytes behind the n-th signature replaced.
fn patched(bytes: &[u8], signature: &[u8], number: usize, changes: &[(usize, &[u8])]) -> Vec<u8> {
    let mut patched = bytes.to_vec();
    let start = find(bytes, signature)[number];
    for &(at, new) in changes {
        patched[start + at..][..new.len()].copy_from_slice(new);
    }
    patched
}

/// What is no file, to read or to write.
pub(crate) const NO_FILE: &str = "is a folder, a pipe or a device, expected a file";

const DAMAGED: &str = "the archive is truncated or damaged (";

fn files() -> Vec<Case> {
    let array = fs::read(fixture("tests/npz/bad_single.npy")).expect("a fixture");
    let starts_with = |start: &str| format!("not an .npz archive: it starts with \"{start}\", expected \"PK\"");
    let mut cases: Vec<Case> = [
        ("empty", &b""[..], "the file is empty, expected an .npz archive".to_owned()),
        ("one byte", b"P", starts_with("P")),
        ("two bytes", b"PK", DAMAGED.to_owned()),
        ("text", b"q,k,v\n1,2,3\n", starts_with("q,k,v\\n")),
        ("a terminal's commands", b"\x1b[2J\x07\xff", starts_with("\\x1b[2J\\x07\\xff")),
        ("zeros", &[0; 1 << 10], starts_with("\\x00\\x00\\x00\\x00\\x00\\x00")),
        ("compressed by gzip", b"\x1f\x8b\x08\0\0\0\0\0", starts_with("\\x1f\\x8b\\x08\\x00\\x00\\x00")),
        ("a single array", &array, "this is a single .npy array, expected an .npz archive".to_owned()),
        ("a start and zeros", &[b"PK\x03\x04", &[0; 1 << 10][..]].concat(), DAMAGED.to_owned()),
        ("nothing but ends", &END.repeat(1 << 18), DAMAGED.to_owned()),
        ("nothing but members", &LOCAL.repeat(1 << 18), DAMAGED.to_owned()),
    ]
    .into_iter()
    .flat_map(|(name, bytes, message)| input(name, bytes, &message))
    .collect();
    for command in ["run --output out.npz --input", "validate --input", "compare other.npz"] {
        let (program, _) = command.split_once(' ').expect("two words");
        let path = |name: &str, path: &str, message: &str| {
            let case = case(format!("{program}: {name}"), &format!("{command} {path}"), format!("{path}: {message}"));
            case.file("other.npz", archive_bytes(&[("out", "<f4", "(1, 1)", &ONE)]))
        };
        cases.extend([
            path("missing", "missing.npz", "cannot read it: No such file or directory"),
            path("a folder", ".", NO_FILE),
            path("below a file", "other.npz/in.npz", "cannot read it: Not a directory"),
            path("a name that is too long", &"x".repeat(300), "cannot read it: File name too long"),
            path("nothing at all", "/dev/null", NO_FILE),
            path("a pipe that nobody writes", "pipe", NO_FILE).make(pipe),
            path("a link to itself", "link", "cannot read it: Too many levels of symbolic links")
                .make(|folder| symlink("link", folder.join("link"))),
            path("a link to nothing", "link", "cannot read it: No such file or directory")
                .make(|folder| symlink("nothing", folder.join("link"))),
        ]);
        if cfg!(target_os = "linux") {
            cases.push(path("without an end", "/dev/zero", NO_FILE));
            cases.push(path("a file that cannot be read", "/proc/self/mem", "cannot read it: Input/output error"));
        }
        let named = |name: &str, file: &[u8], shown: &str| {
            let file: &OsStr = OsStrExt::from_bytes(file);
            let case = case(format!("{program}: a name of {name}"), command, format!("{shown}: "));
            let case = case.file("other.npz", archive_bytes(&[("out", "<f4", "(1, 1)", &ONE)]));
            case.argument(file).file(file, "text")
        };
        let deep = case(format!("{program}: a path that is too long"), command, "x/x/x").argument("x/".repeat(3000));
        let deep = deep.file("other.npz", archive_bytes(&[("out", "<f4", "(1, 1)", &ONE)]));
        cases.push(deep.end("cannot read it: File name too long (os error 36)"));
        cases.push(named("two lines", b"a\nattn: b", "a\\nattn: b"));
        cases.push(named("a terminal's commands", b"\x1b[2J\x07\r\xc2\x9b2J", "\\u{1b}[2J\\u{7}\\r\\u{9b}2J"));
        cases.push(named("no text", b"\xff\xfe.npz", "\u{fffd}\u{fffd}.npz"));
        cases.push(case(format!("{program}: no name"), command, "a value is required for '").argument(""));
    }
    cases
}

/// Cut at every structure and beside it; at every single byte, tests/npz.rs cuts them.
fn cut() -> Vec<Case> {
    let mut cases = Vec::new();
    for name in ["float32.npz", "compressed_int8.npz"] {
        let whole = fs::read(fixture(&format!("tests/npz/{name}"))).expect("a fixture");
        let starts = [LOCAL, CENTRAL, END].into_iter().flat_map(|signature| find(&whole, signature));
        let mut lengths: Vec<usize> = starts.flat_map(|at| [at, at + 1, at + 4, at + 20, at + 40]).collect();
        lengths.push(whole.len());
        lengths.retain(|&length| length > 2 && length <= whole.len());
        lengths.sort_unstable();
        lengths.dedup();
        lengths.pop();
        cases.extend(
            lengths.into_iter().flat_map(|length| input(&format!("{name} cut to {length}"), &whole[..length], DAMAGED)),
        );
    }
    cases
}

/// Zip64's end of an archive, which says that it has so many members, from this byte on.
fn zip64_end(members: u64, start: u64, at: u64) -> Vec<u8> {
    let numbers = |numbers: &[u64]| -> Vec<u8> { numbers.iter().flat_map(|number| number.to_le_bytes()).collect() };
    let record =
        [b"PK\x06\x06", &numbers(&[44])[..], &[45, 0, 45, 0], &[0; 8], &numbers(&[members, members, 46, start])]
            .concat();
    let locator = [b"PK\x06\x07", &[0; 4][..], &numbers(&[at]), &[1, 0, 0, 0]].concat();
    let end = [END, &[0; 4][..], &[0xff; 12], &[0; 2]].concat();
    [record, locator, end].concat()
}

fn containers() -> Vec<Case> {
    let good = archive_bytes(&GOOD);
    let compressed = fs::read(fixture("tests/npz/compressed.npz")).expect("a fixture");
    let local = |at, new: &[u8]| patched(&good, LOCAL, 0, &[(at, new)]);
    let central = |at, new: &[u8]| patched(&good, CENTRAL, 0, &[(at, new)]);
    let end = |at, new: &[u8]| patched(&good, END, 0, &[(at, new)]);
    let mut data = good.clone();
    data[find(&good, LOCAL)[1] - 1] ^= 1;
    let directory = find(&good, CENTRAL)[0];
    let zip64 = |members, start| {
        [&good[..find(&good, END)[0]], &zip64_end(members, start, find(&good, END)[0] as u64)].concat()
    };
    let padded = [&vec![0; 1 << 20][..], &zip64_end(1 << 20, 1 << 20, 1 << 20)].concat();
    let padded = [b"PK\x03\x04", &padded[4..]].concat();
    let size = |by: u8| {
        let at = find(&compressed, CENTRAL)[0] + 24;
        patched(&compressed, CENTRAL, 0, &[(24, &[compressed[at] ^ by])])
    };
    let unreadable = "cannot read array q: ";
    // Header and directory agree on a GiB; there are 32 bytes.
    let agreed = with(&[("q", "|i1", "(134217728, 8)", &TENSOR)]);
    let header = u32::from_le_bytes(*agreed[find(&agreed, CENTRAL)[5] + 24..].first_chunk().expect("a size")) - 32;
    let agreed = patched(&agreed, CENTRAL, 5, &[(24, &((1 << 30) + header).to_le_bytes())]);
    let names =
        |name: &str, count: usize| zip_of(&(0..count).map(|i| (format!("{name}{i:02}.npy"), "")).collect::<Vec<_>>());
    [
        (
            "a changed byte of the data",
            data,
            "cannot read array q: Invalid checksum: write the archive again with numpy.savez",
        ),
        ("a wrong checksum", central(16, &[1, 2, 3, 4]), "cannot read array q: Invalid checksum"),
        (
            "encrypted",
            central(8, &[1]),
            "cannot read array q: unsupported Zip archive: Password required to decrypt file",
        ),
        ("an unknown compression", central(10, &[12]), unreadable),
        ("deflated, it says, and stored", central(10, &[8]), unreadable),
        ("a size of one more", size(1), "q holds 193 bytes of data, expected 192 for float32 of shape (2, 3, 8)"),
        ("a size of far more", central(24, &[0xfe, 0xff, 0xff, 0xff]), "q holds "),
        ("a size that the array's header has, too", agreed, "q holds 32 bytes of data, expected 1073741824 for int8"),
        ("a compressed size of far more", central(20, &[0xfe, 0xff, 0xff, 0xff]), unreadable),
        ("a member that begins nowhere", central(42, &[0xfe, 0xff, 0xff, 0xff]), unreadable),
        ("a member that begins in another", central(42, &[1]), unreadable),
        ("a member without its signature", patched(&good, LOCAL, 0, &[(2, b"XX")]), unreadable),
        ("a member whose name is longer", local(26, &[0xff, 0xff]), unreadable),
        ("a directory without its signature", patched(&good, CENTRAL, 3, &[(0, b"XX")]), DAMAGED),
        ("a directory that begins nowhere", end(16, &[0xfe, 0xff, 0xff, 0xff]), DAMAGED),
        ("a directory that begins one byte later", end(16, &(directory as u32 + 1).to_le_bytes()), DAMAGED),
        ("a directory of far more members", end(8, &[0xfe, 0xff, 0xfe, 0xff]), DAMAGED),
        ("a directory on another disk", end(4, &[7, 0, 7, 0]), DAMAGED),
        ("zip64 of 2^64 - 1 members", zip64(u64::MAX, directory as u64), DAMAGED),
        ("zip64 of 2^60 members", zip64(1 << 60, directory as u64), DAMAGED),
        ("zip64 that begins at 2^63", zip64(6, 1 << 63), DAMAGED),
        ("zip64 of as many members as bytes", padded, DAMAGED),
        ("no member", zip_of(&[("", ""); 0]), "no array q: the archive holds nothing, expected q, k and v"),
        ("folders", zip_of(&[("q.npy/", ""), ("k.npy/", "")]), "no array q: the archive holds "),
        (
            "names of a terminal's commands",
            names("\x1b[2J\r\n", 2),
            "no array q: the archive holds \\u{1b}[2J\\r\\n00, ",
        ),
        ("names that go up", names("../../q", 1), "no array q: the archive holds ../../q00, expected q, k and v"),
        ("long names", names(&"x".repeat(60_000), 9), "no array q: the archive holds xxx"),
        (
            "many names",
            names("a", 100),
            "no array q: the archive holds a00, a01, a02, a03, a04, a05, a06, a07, a08, a09 and 90 more, ",
        ),
        (
            "a name that is no text",
            [&good[..], &[]]
                .concat()
                .iter()
                .enumerate()
                .map(|(at, &byte)| if find(&good, b"q.npy").contains(&at) { 0xff } else { byte })
                .collect(),
            "no array q: the archive holds ",
        ),
    ]
    .into_iter()
    .flat_map(|(name, bytes, message)| input(name, &bytes, message))
    .collect()
}

/// An npy header of version 1.0.
fn header(descr: &str, shape: &str) -> String {
    format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n")
}

/// A GiB of zeros, deflated to a MiB.
static ZEROS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated).large_file(true);
    archive.start_file("q.npy", options).expect("a member");
    archive.write_all(&npy(&header("|i1", "(16777216, 64)"), b"")).expect("written");
    let mebibyte = vec![0; 1 << 20];
    (0..1024).for_each(|_| archive.write_all(&mebibyte).expect("written"));
    archive.finish().expect("written").into_inner()
});

/// [`ZEROS`] as `q` beside these arrays.
fn beside_zeros(arrays: &[Array<'_>]) -> Vec<u8> {
    let mut archive = ZipWriter::new_append(Cursor::new(ZEROS.clone())).expect("an archive");
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, dtype, shape, data) in arrays {
        archive.start_file(format!("{name}.npy"), options).expect("a member");
        archive.write_all(&npy(&header(dtype, shape), data)).expect("written");
    }
    archive.finish().expect("written").into_inner()
}

fn bombs() -> Vec<Case> {
    let key = ["k", "v"].map(|name| (name, "|i1", "(1, 64)", &[1; 64][..]));
    let [_, _, _, scales @ ..] = GOOD;
    let other = ["k", "v"].map(|name| (name, "|i1", "(1, 32)", &[1; 32][..]));
    let whole = [&key[..], &scales].concat();
    let mask = [&whole[..], &[("mask", "|b1", "(2, 1)", &[1, 1])]].concat();
    let scale = [&key[..], &scales[1..], &[("q_scale", "<f4", "(16777216,)", &ONE)]].concat();
    let bytes = |arrays: &[Array<'_>]| beside_zeros(arrays);
    [
        ("a GiB of zeros alone", ZEROS.clone(), "no array k: the archive holds q, expected q, k and v"),
        (
            "a GiB of zeros beside another dimension",
            bytes(&[&other[..], &scales].concat()),
            "q has shape (16777216, 64) and k has shape (1, 32), expected equal last dimensions",
        ),
        (
            "a GiB of zeros and a mask",
            bytes(&mask),
            "mask has shape (2, 1), expected one that broadcasts to (16777216, 1)",
        ),
        (
            "a GiB of zeros and a scale each",
            bytes(&scale),
            "q_scale has shape (16777216,), expected one number or one per head",
        ),
        (
            "a GiB of zeros that fit, and not into memory",
            bytes(&whole),
            "q is int8 of shape (16777216, 64): there is not enough memory for it",
        ),
    ]
    .into_iter()
    .flat_map(|(name, bytes, message)| input(name, &bytes, message))
    .collect()
}

/// tests/npz/make.py makes them, with numpy.
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
    ("bad_member_brackets.npz", "cannot read array q: its header is \"[[[["),
    (
        "bad_member_header_length.npz",
        "cannot read array q: its header has 4294967295 bytes, expected at most 10000: write the archive again with numpy.savez",
    ),
];

fn by_numpy() -> Vec<Case> {
    let of = |&(name, message): &(&str, &str)| {
        let bytes = fs::read(fixture(&format!("tests/npz/{name}"))).expect("a fixture");
        input(&format!("numpy's {name}"), &bytes, message)
    };
    BAD.iter().flat_map(of).collect()
}

#[test]
fn every_archive_of_numpy_is_in_the_table() {
    let files = fs::read_dir(fixture("tests/npz")).expect("a folder").map(|file| file.expect("listed").file_name());
    let mut files: Vec<_> = files.filter(|file| file.to_string_lossy().starts_with("bad_")).collect();
    files.sort();
    let mut tested: Vec<_> = BAD.iter().map(|(name, _)| *name).collect();
    tested.sort_unstable();
    assert_eq!(files, tested);
}

/// [`GOOD`] with another member `q.npy`.
fn with_query(bytes: &[u8]) -> Vec<u8> {
    let others = GOOD[1..].iter();
    let others = others.map(|(name, dtype, shape, data)| (format!("{name}.npy"), npy(&header(dtype, shape), data)));
    zip_of(&[("q.npy".to_owned(), bytes.to_vec())].into_iter().chain(others).collect::<Vec<_>>())
}

/// Both commands refuse these headers.
fn of_headers(headers: &[(&str, Vec<u8>, &str)]) -> Vec<Case> {
    let refused = headers
        .iter()
        .flat_map(|(name, query, message)| input(&format!("a header of {name}"), &with_query(query), message));
    refused.collect()
}

const UNREADABLE: &str = "cannot read array q: its header is ";

fn headers() -> Vec<Case> {
    let shape = |shape: &str| npy(&header("|i1", shape), &TENSOR);
    let mut cases = of_headers(&[
        (
            "2^60 elements",
            shape("(1152921504606846976, 1)"),
            "q holds 32 bytes of data, expected 1152921504606846976 for int8 of shape",
        ),
        (
            "2^64 elements",
            shape("(4294967296, 4294967296)"),
            "q holds 32 bytes of data, expected 18446744073709551615 for int8",
        ),
        (
            "2^64 elements of 0 and 1",
            shape("(18446744073709551615, 0)"),
            "q has shape (18446744073709551615, 0), expected no dimension of zero",
        ),
        ("a length beyond 2^64", shape("(18446744073709551616, 8)"), UNREADABLE),
        ("a negative length", shape("(-4, 8)"), UNREADABLE),
        ("two negative lengths", shape("(-4, -8)"), UNREADABLE),
        ("a length of no integer", shape("(4.0, 8)"), UNREADABLE),
        ("a length in words", shape("(four, 8)"), UNREADABLE),
        ("a shape without brackets", shape("4, 8"), UNREADABLE),
        ("a shape in a shape", shape("((4, 8), 8)"), UNREADABLE),
        ("a shape without an end", shape("(4, 8"), UNREADABLE),
    ]);
    cases.extend(headers_of_another_form());
    cases
}

fn headers_of_another_form() -> Vec<Case> {
    let raw = |header: &str| npy(header, &TENSOR);
    let of_length =
        |length: u32, there: usize| [b"\x93NUMPY\x02\x00", &length.to_le_bytes()[..], &vec![b' '; there]].concat();
    let padded = |length: usize| format!("{:1$}\n", header("|i1", "(4, 8)").trim_end(), length - 1);
    of_headers(&[
        ("an order that is none", raw("{'descr': '|i1', 'fortran_order': None, 'shape': (4, 8), }\n"), UNREADABLE),
        ("no order", raw("{'descr': '|i1', 'shape': (4, 8), }\n"), UNREADABLE),
        ("no dtype", raw("{'fortran_order': False, 'shape': (4, 8), }\n"), UNREADABLE),
        ("no shape", raw("{'descr': '|i1', 'fortran_order': False, }\n"), UNREADABLE),
        ("an expression", raw("__import__('os').system('id')\n"), UNREADABLE),
        ("zeros", raw(&"\0".repeat(118)), UNREADABLE),
        (
            "a terminal's commands",
            raw("\x1b[2J\r\n"),
            "cannot read array q: its header is \"\\u{1b}[2J\\r\\n\", expected descr, fortran_order and shape",
        ),
        (
            "a dtype of a terminal's commands",
            npy(&header("\x1b[2J", "(4, 8)"), &TENSOR),
            "q is \\u{1b}[2J, expected float16",
        ),
        ("a long dtype", npy(&header(&"x".repeat(9000), "(4, 8)"), &TENSOR), "q is xxx"),
        (
            "a dtype of 2^64 bytes",
            npy(&header("|S18446744073709551615", "(4, 8)"), &TENSOR),
            "q is |S18446744073709551615, expected float16",
        ),
        (
            "an int8 of no byte",
            npy(&header("|i0", "(4, 8)"), &TENSOR),
            "q is |i0, expected float16, float32, float64 or int8",
        ),
        (
            "a float of 2^61 bytes",
            npy(&header("<f2305843009213693952", "(4, 8)"), &TENSOR),
            "q is <f2305843009213693952, expected float16",
        ),
        (
            "no text",
            [b"\x93NUMPY\x01\x00\x02\x00", &[0xff, 0xfe][..], &TENSOR].concat(),
            "cannot read array q: its header is not text",
        ),
        ("nothing behind the signature", b"\x93NUMPY".to_vec(), "cannot read array q: it ends within its header"),
        ("nothing behind the version", b"\x93NUMPY\x01\x00".to_vec(), "cannot read array q: it ends within its header"),
        (
            "version 0.0",
            b"\x93NUMPY\x00\x00\x00\x00".to_vec(),
            "cannot read array q: npy version 0.0, expected 1.0, 2.0 or 3.0",
        ),
        (
            "version 4.0",
            b"\x93NUMPY\x04\x00\x00\x00".to_vec(),
            "cannot read array q: npy version 4.0, expected 1.0, 2.0 or 3.0",
        ),
        (
            "version 255.255",
            b"\x93NUMPY\xff\xff\x00\x00".to_vec(),
            "cannot read array q: npy version 255.255, expected",
        ),
        (
            "10 001 bytes",
            raw(&padded(10_001)),
            "cannot read array q: its header has 10001 bytes, expected at most 10000",
        ),
        (
            "100 MB that are not there",
            of_length(100_000_000, 100),
            "cannot read array q: its header has 100000000 bytes, expected at most 10000",
        ),
        (
            "a MB that is there",
            of_length(1_000_000, 1_000_000),
            "cannot read array q: its header has 1000000 bytes, expected at most 10000",
        ),
    ])
}

fn dtypes() -> Vec<Case> {
    let mut cases = Vec::new();
    for (descr, bytes, name) in [
        ("|b1", 1, "bool"),
        ("|u1", 1, "uint8"),
        ("<i2", 2, "int16"),
        ("<i4", 4, "int32"),
        (">i8", 8, "int64"),
        ("<u8", 8, "uint64"),
        ("<c8", 8, "complex64"),
        ("<c16", 16, "complex128"),
        ("<f16", 16, "float128"),
        ("|O", 8, "object"),
        ("|S1", 1, "|S1"),
        ("<U1", 4, "<U1"),
        ("<M8[ns]", 8, "<M8[ns]"),
        ("<m8[s]", 8, "<m8[s]"),
        ("|V1", 1, "|V1"),
        ("i1", 1, "i1"),
        ("<f", 4, "<f"),
        ("", 1, ""),
    ] {
        let data = vec![0; 32 * bytes];
        for array in ["q", "k", "v"] {
            let message = format!("{array} is {name}, expected float16, float32, float64 or int8");
            let [run, _] =
                input(&format!("{array} of dtype {descr:?}"), &with(&[(array, descr, "(4, 8)", &data)]), &message);
            cases.push(run);
        }
    }
    let floats = [0; 128];
    for array in ["q", "k", "v"] {
        let [q, k, v] = ["q", "k", "v"].map(|name| if name == array { "float32" } else { "int8" });
        let message = format!("q is {q}, k is {k} and v is {v}, expected all three float or all three int8");
        cases.extend(input(&format!("{array} alone of floats"), &with(&[(array, "<f4", "(4, 8)", &floats)]), &message));
    }
    cases
}

/// Three tensors of floats.
fn floats(dtype: &str, numbers: [&[u8]; 3]) -> Vec<u8> {
    let [q, k, v] = numbers;
    archive_bytes(&[("q", dtype, "(4, 8)", q), ("k", dtype, "(4, 8)", k), ("v", dtype, "(4, 8)", v)])
}

fn numbers() -> Vec<Case> {
    let mut cases = Vec::new();
    let wide = |x: f32| x.to_le_bytes().to_vec();
    let double = |x: f64| x.to_le_bytes().to_vec();
    let big = |x: f32| x.to_be_bytes().to_vec();
    for (name, dtype, number, one, shown) in [
        ("NaN", "<f4", wide(f32::NAN), wide(1.0), "NaN, expected a finite number"),
        ("-NaN", "<f4", wide(-f32::NAN), wide(1.0), "NaN, expected a finite number"),
        ("a signalling NaN", "<f4", vec![1, 0, 0x80, 0x7f], wide(1.0), "NaN, expected a finite number"),
        ("infinity", "<f4", wide(f32::INFINITY), wide(1.0), "inf, expected a finite number"),
        ("-infinity, big-endian", ">f4", big(f32::NEG_INFINITY), big(1.0), "-inf, expected a finite number"),
        ("NaN in float16", "<f2", vec![1, 0x7c], vec![0, 0x3c], "NaN, expected a finite number"),
        ("infinity in float16", "<f2", vec![0, 0x7c], vec![0, 0x3c], "inf, expected a finite number"),
        ("NaN in float64", "<f8", double(f64::NAN), double(1.0), "NaN, expected a finite number"),
        ("infinity in float64", "<f8", double(f64::INFINITY), double(1.0), "inf, expected a finite number"),
        (
            "more than a float32",
            "<f8",
            double(3.5e38),
            double(1.0),
            "3.5e38, expected at most 3.4028235e38, the largest float32",
        ),
        (
            "the largest float64",
            "<f8",
            double(f64::MAX),
            double(1.0),
            "1.7976931348623157e308, expected at most 3.4028235e38",
        ),
    ] {
        for (index, array) in ["q", "k", "v"].into_iter().enumerate() {
            let good = one.repeat(32);
            let bad = [one.repeat(31), number.clone()].concat();
            let mut tensors = [&good[..]; 3];
            tensors[index] = &bad;
            let message = format!("{array}[3, 7] is {shown}");
            cases.extend(input(&format!("{name} in {array}"), &floats(dtype, tensors), &message));
        }
    }
    let large = wide(1e10).repeat(32);
    cases.extend(input("floats that are almost argmax", &floats("<f4", [&large; 3]), "head 0: "));
    cases
}

fn shapes() -> Vec<Case> {
    let mut cases = Vec::new();
    let all = |shape: &str, len: usize| {
        let bytes = vec![1; len];
        with(&["q", "k", "v"].map(|name| (name, "|i1", shape, &bytes[..])))
    };
    let dim = |d: usize| format!("head dimension: got {d}, expected 8 to 256");
    for d in [1, 7, 257, 300, 65_536] {
        cases.extend(input(&format!("dimension {d}"), &all(&format!("(4, {d})"), 4 * d), &dim(d)));
    }
    let keys = vec![1; ((1 << 20) + 1) * 8];
    let many = with(&["k", "v"].map(|name| (name, "|i1", "(1048577, 8)", &keys[..])));
    cases.extend(input("2^20 + 1 keys", &many, "keys: got 1048577, expected at most 1048576"));
    for (name, arrays, message) in [
        (
            "no dimension",
            vec![("q", "|i1", "()", &[1][..])],
            "q has shape (), expected two dimensions or more, [.., sequence, d]",
        ),
        ("one dimension", vec![("k", "|i1", "(8,)", &[1; 8])], "k has shape (8,), expected two dimensions or more"),
        ("no queries", vec![("q", "|i1", "(0, 8)", &[])], "q has shape (0, 8), expected no dimension of zero"),
        ("no heads", vec![("v", "|i1", "(0, 4, 8)", &[])], "v has shape (0, 4, 8), expected no dimension of zero"),
        ("zero dimensions", vec![("q", "|i1", "(4, 0)", &[])], "q has shape (4, 0), expected no dimension of zero"),
        (
            "lengths that differ",
            vec![("v", "|i1", "(2, 8)", &[1; 16])],
            "k has shape (4, 8) and v has shape (2, 8), expected equal shapes",
        ),
        (
            "transposed queries",
            vec![("q", "|i1", "(8, 4)", &TENSOR)],
            "q has shape (8, 4) and k has shape (4, 8), expected equal last",
        ),
        (
            "heads of k and none of v",
            vec![("k", "|i1", "(1, 4, 8)", &TENSOR)],
            "k has shape (1, 4, 8) and v has shape (4, 8), expected equal",
        ),
        (
            "heads that do not divide",
            vec![
                ("q", "|i1", "(3, 1, 8)", &[1; 24]),
                ("k", "|i1", "(2, 2, 8)", &TENSOR),
                ("v", "|i1", "(2, 2, 8)", &TENSOR),
            ],
            "q has shape (3, 1, 8) and k has shape (2, 2, 8), expected q's heads to be a multiple of k's",
        ),
        (
            "fewer heads than those of k",
            vec![("k", "|i1", "(2, 2, 8)", &TENSOR), ("v", "|i1", "(2, 2, 8)", &TENSOR)],
            "q has shape (4, 8) and k has shape (2, 2, 8), expected q's heads to be a multiple of k's",
        ),
        (
            "less data than the shape",
            vec![("q", "|i1", "(5, 8)", &TENSOR)],
            "q holds 32 bytes of data, expected 40 for int8 of shape (5, 8)",
        ),
        (
            "more data than the shape",
            vec![("q", "|i1", "(3, 8)", &TENSOR)],
            "q holds 32 bytes of data, expected 24 for int8 of shape (3, 8)",
        ),
    ] {
        cases.extend(input(name, &with(&arrays), message));
    }
    let fortran = "{'descr': '|i1', 'fortran_order': True, 'shape': (8, 4), }\n";
    let members: Vec<_> = ["q", "k", "v"].map(|name| (format!("{name}.npy"), npy(fortran, &TENSOR))).into();
    cases.extend(input("Fortran's order of transposed tensors", &zip_of(&members), "no array q_scale: "));
    for name in ["q", "k", "v"] {
        let kept: Vec<_> = GOOD.into_iter().filter(|(array, ..)| *array != name).collect();
        let message = format!("no array {name}: the archive holds ");
        cases.extend(input(&format!("without {name}"), &archive_bytes(&kept), &message));
    }
    cases
}

fn scales() -> Vec<Case> {
    let mut cases = Vec::new();
    let positive = ", expected a positive and finite float32";
    let single = |x: f32| x.to_le_bytes().to_vec();
    let double = |x: f64| x.to_le_bytes().to_vec();
    for (name, dtype, bytes, shown) in [
        ("zero", "<f4", single(0.0), "0.0"),
        ("-zero", "<f4", single(-0.0), "-0.0"),
        ("-1", "<f4", single(-1.0), "-1.0"),
        ("NaN", "<f4", single(f32::NAN), "NaN"),
        ("infinity", "<f4", single(f32::INFINITY), "inf"),
        ("-infinity", "<f8", double(f64::NEG_INFINITY), "-inf"),
        ("less than a float32", "<f8", double(1e-50), "1e-50"),
        ("the smallest float64", "<f8", double(5e-324), "5e-324"),
        ("more than a float32", "<f8", double(1e39), "1e39"),
        ("an integer of zero", "<i8", vec![0; 8], "0.0"),
        ("a negative integer", "<i4", (-3_i32).to_le_bytes().to_vec(), "-3.0"),
        ("float16 of zero", "<f2", vec![0, 0], "0.0"),
    ] {
        for scale in ["q_scale", "k_scale", "v_scale"] {
            let bytes = with(&[(scale, dtype, "()", &bytes)]);
            let [run, _] = input(&format!("{scale} is {name}"), &bytes, &format!("{scale} is {shown}{positive}"));
            cases.push(run);
        }
    }
    for (name, array, message) in [
        (
            "one too many",
            ("k_scale", "<f4", "(2,)", &[63; 8][..]),
            "k_scale has shape (2,), expected one number or one per head",
        ),
        ("none", ("k_scale", "<f4", "(0,)", &[]), "k_scale has shape (0,), expected no dimension of zero"),
        (
            "one for each key",
            ("v_scale", "<f4", "(1, 4)", &[63; 16]),
            "v_scale has shape (1, 4), expected one number or one per head",
        ),
        (
            "2^60 of them",
            ("v_scale", "<f4", "(1152921504606846976,)", &ONE),
            "v_scale has shape (1152921504606846976,), expected one",
        ),
        (
            "of uint8",
            ("q_scale", "|u1", "()", &[1]),
            "q_scale is uint8, expected a float (float16, float32, float64) or an integer",
        ),
        ("of bool", ("q_scale", "|b1", "()", &[1]), "q_scale is bool, expected a float"),
        ("of complex numbers", ("q_scale", "<c8", "()", &[1; 8]), "q_scale is complex64, expected a float"),
        ("of text", ("q_scale", "<U3", "()", &[49; 12]), "q_scale is <U3, expected a float"),
        (
            "of too few bytes",
            ("q_scale", "<f4", "()", &[1; 3]),
            "q_scale holds 3 bytes of data, expected 4 for float32 of shape ()",
        ),
        ("almost argmax", ("q_scale", "<f4", "()", &[0, 0, 200, 66]), "head 0: "),
    ] {
        cases.extend(input(&format!("scales: {name}"), &with(&[array]), message));
    }
    for name in ["q_scale", "k_scale", "v_scale"] {
        let kept: Vec<_> = GOOD.into_iter().filter(|(array, ..)| *array != name).collect();
        cases.extend(input(
            &format!("without {name}"),
            &archive_bytes(&kept),
            &format!("no array {name}: the archive holds k, "),
        ));
        let tensor = ONE.repeat(32);
        let beside = floats("<f4", [&tensor; 3]);
        let mut archive = ZipWriter::new_append(Cursor::new(beside)).expect("an archive");
        archive.start_file(format!("{name}.npy"), SimpleFileOptions::default()).expect("a member");
        archive.write_all(&npy(&header("<f4", "()"), &ONE)).expect("written");
        let bytes = archive.finish().expect("written").into_inner();
        cases.extend(input(
            &format!("{name} of floats"),
            &bytes,
            &format!("{name} beside float arrays, expected none: leave it out"),
        ));
    }
    cases
}

fn masks() -> Vec<Case> {
    let mask = |dtype, shape, bytes| with(&[("mask", dtype, shape, bytes)]);
    [
        ("uint8", mask("|u1", "(4, 4)", &[1; 16][..]), "mask is uint8, expected bool (true where a query sees a key)"),
        ("floats", mask("<f4", "(4, 4)", &[0; 64]), "mask is float32, expected bool"),
        (
            "another shape",
            mask("|b1", "(3, 4)", &[1; 12]),
            "mask has shape (3, 4), expected one that broadcasts to (4, 4)",
        ),
        ("too many dimensions", mask("|b1", "(1, 1, 4, 4)", &[1; 16]), "mask has shape (1, 1, 4, 4), expected one"),
        ("too few bytes", mask("|b1", "(4, 4)", &[1; 15]), "mask holds 15 bytes of data, expected 16"),
        ("nothing", mask("|b1", "(0, 4)", &[]), "mask has shape (0, 4), expected no dimension of zero"),
        (
            "2^60 elements",
            mask("|b1", "(1152921504606846976, 4)", &[1]),
            "mask has shape (1152921504606846976, 4), expected one",
        ),
    ]
    .into_iter()
    .flat_map(|(name, bytes, message)| input(&format!("a mask of {name}"), &bytes, message))
    .collect()
}

fn no_outputs() -> Vec<Case> {
    const INT8: Array<'_> = ("out", "|i1", "(1, 2)", &[1, 2]);
    let good = archive_bytes(&[INT8, ("out_scale", "<f4", "()", &ONE)]);
    let nan = [f32::NAN.to_le_bytes(), ONE].concat();
    let ones = ONE.repeat(2);
    let bad: [(&str, Vec<Array<'_>>, &str); 11] = [
        ("nothing", vec![], "no array out: the archive holds nothing, expected out (and out_scale beside int8)"),
        ("no scale", vec![INT8], "no array out_scale: the archive holds out, expected out_scale beside an int8 out"),
        (
            "a scale of zero",
            vec![INT8, ("out_scale", "<f4", "()", &[0; 4])],
            "out_scale is 0.0, expected a positive and finite float32",
        ),
        (
            "two scales",
            vec![INT8, ("out_scale", "<f4", "(2,)", &[63; 8])],
            "out_scale has shape (2,), expected one number or one per",
        ),
        (
            "integers",
            vec![("out", "<i4", "(1, 2)", &[0; 8])],
            "out is int32, expected float16, float32, float64 or int8",
        ),
        ("one dimension", vec![("out", "<f4", "(2,)", &nan)], "out has shape (2,), expected two dimensions or more"),
        ("NaN", vec![("out", "<f4", "(1, 2)", &nan)], "out[0, 0] is NaN, expected a finite number"),
        ("no element", vec![("out", "<f4", "(0, 2)", &[])], "out has shape (0, 2), expected no dimension of zero"),
        (
            "a scale of floats",
            vec![("out", "<f4", "(1, 1)", &ONE), ("out_scale", "<f4", "()", &ONE)],
            "out_scale beside float arrays",
        ),
        (
            "2^60 elements",
            vec![("out", "|i1", "(1152921504606846976, 1)", &[1])],
            "out holds 1 bytes of data, expected 1152921504606846976",
        ),
        (
            "a header alone",
            vec![("out", "<f4", "(1, 2)", &[])],
            "out holds 0 bytes of data, expected 8 for float32 of shape (1, 2)",
        ),
    ];
    let mut cases = Vec::new();
    for (name, arrays, message) in bad {
        for (place, command) in [("first", "compare bad.npz good.npz"), ("second", "compare good.npz bad.npz --json")] {
            let case = case(format!("compare: {name}, {place}"), command, format!("bad.npz: {message}"));
            cases.push(case.file("good.npz", good.clone()).file("bad.npz", archive_bytes(&arrays)));
        }
    }
    let other = archive_bytes(&[("out", "<f4", "(2, 1)", &ones)]);
    let message = "a.npz against b.npz: the first out has shape (2, 1) and the second (1, 2), expected equal shapes";
    cases.push(case("compare: other shapes", "compare a.npz b.npz", message).file("a.npz", other).file("b.npz", good));
    cases
}

/// [`GOOD`] with other scales of queries and values, and one number as values.
fn scaled(query: f32, value: f32, number: u8) -> Vec<u8> {
    let (query, value) = (query.to_le_bytes(), value.to_le_bytes());
    with(&[("v", "|i1", "(4, 8)", &[number; 32]), ("q_scale", "<f4", "()", &query), ("v_scale", "<f4", "()", &value)])
}

/// Name, bytes and options.
type Odd = (&'static str, fn() -> Vec<u8>, &'static str);

/// Archives that are taken, although they look odd.
pub(crate) const ODD: [Odd; 10] = [
    ("a mask of other bytes than 0 and 1", || with(&[("mask", "|b1", "(4, 4)", &[7; 16])]), ""),
    ("a mask that hides everything", || with(&[("mask", "|b1", "()", &[0])]), ""),
    ("keys beyond every offset", good, " --causal=18446744073709551615"),
    ("no valid key", good, " --valid-keys 0"),
    ("the smallest scales", || scaled(f32::from_bits(1), f32::from_bits(1), 3), ""),
    ("the largest scale", || scaled(1e-9, f32::MAX, 0x80), ""),
    ("-128", || with(&["q", "k", "v"].map(|name| (name, "|i1", "(4, 8)", &[0x80; 32][..]))), ""),
    ("nothing but zeros", || floats("<f4", [&[0; 128]; 3]), ""),
    ("subnormal floats", || floats("<f4", [&[1, 0, 0, 0].repeat(32); 3]), ""),
    (
        "a thousand dimensions",
        || {
            let shape = format!("({}4, 8)", "1, ".repeat(1000));
            with(&[("q", "|i1", &shape, &TENSOR)])
        },
        "",
    ),
];

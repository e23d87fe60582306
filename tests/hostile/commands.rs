//! Arguments, files of an NPU, and environments that the commands refuse.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::symlink},
};

use attn::backend::Isa;

use crate::{
    archives::{NO_FILE, good},
    common::fixture,
    runner::{Case, case, pipe, refuse},
};

pub(crate) fn cases() -> Vec<Case> {
    [arguments(), numbers(), backends(), xclbins(), designs(), environments()].into_iter().flatten().collect()
}

#[test]
fn arguments_that_are_none() {
    refuse(&arguments());
}

#[test]
fn numbers_out_of_range() {
    refuse(&numbers());
}

#[test]
fn backends_that_are_not_here() {
    refuse(&backends());
}

#[test]
fn what_is_no_xclbin_is_not_inspected() {
    refuse(&xclbins());
}

#[test]
fn designs_that_the_hardware_cannot_do() {
    refuse(&designs());
}

#[test]
fn environments_without_threads_or_tools() {
    refuse(&environments());
}

const RUN: &str = "run --input in.npz --output out.npz";
const COMMANDS: [&str; 7] = [
    RUN,
    "validate",
    "compare a.npz b.npz",
    "bench",
    "npu build --dry-run",
    "npu inspect attn.xclbin",
    "doctor --for cpu",
];

fn arguments() -> Vec<Case> {
    let mut cases = Vec::new();
    for command in COMMANDS {
        let long = "x".repeat(100_000);
        let unexpected = |argument: &str| format!("unexpected argument '{argument}' found");
        cases.extend([
            case(
                format!("arguments of {command}: an option"),
                &format!("{command} --frobnicate"),
                unexpected("--frobnicate"),
            ),
            case(
                format!("arguments of {command}: an argument too many"),
                &format!("{command} c.npz"),
                unexpected("c.npz"),
            ),
            case(
                format!("arguments of {command}: a long one"),
                command,
                unexpected("xxx").split_once('x').expect("an x").0,
            )
            .argument(&long)
            .end("For more information, try '--help'."),
            case(format!("arguments of {command}: a terminal's commands"), command, "unexpected argument '--")
                .argument("--\x1b[2J\x07"),
            case(format!("arguments of {command}: two lines"), command, "unexpected argument '--a")
                .argument("--a\nattn: b"),
            case(format!("arguments of {command}: no text"), command, unexpected("--\u{fffd}"))
                .argument(OsStr::from_bytes(b"--\xff")),
        ]);
    }
    let of = |arguments: &str, message: &str| case(format!("arguments: {arguments}"), arguments, message);
    cases.extend([
        of("frobnicate", "unrecognized subcommand 'frobnicate'"),
        of("compre", "unrecognized subcommand 'compre'; tip: a similar subcommand exists: 'compare'"),
        of("npu frobnicate", "unrecognized subcommand 'frobnicate'"),
        of("", "unrecognized subcommand ''"),
        of("run", "the following required arguments were not provided: --input <IN.npz>, --output <OUT.npz>"),
        of("run --input in.npz", "the following required arguments were not provided: --output <OUT.npz>"),
        of("run --output out.npz", "the following required arguments were not provided: --input <IN.npz>"),
        of("run --input", "a value is required for '--input <IN.npz>' but none was supplied"),
        of(
            "run --input a.npz --input b.npz --output out.npz",
            "the argument '--input <IN.npz>' cannot be used multiple",
        ),
        of("validate --causal", "the following required arguments were not provided: --input <FILE.npz>"),
        of("validate --valid-keys 3", "the following required arguments were not provided: --input <FILE.npz>"),
        of("validate --tolerance 1", "unexpected argument '--tolerance' found"),
        of("compare a.npz", "the following required arguments were not provided: <B.npz>"),
        of("npu inspect", "the following required arguments were not provided: <FILE.xclbin>"),
        of("doctor --for gpu", "invalid value 'gpu' for '--for <npu|cpu>'"),
        of("npu build --heads 8", "the following required arguments were not provided: --queries <M>, --keys <N>"),
        of("npu build --queries 8", "the following required arguments were not provided: --keys <N>, --heads <H>"),
        of("npu build --config tile-core --tiles 3", "the argument '--config <NAME>' cannot be used with"),
        of("npu build --tiles 3 --heads 8 --queries 8 --keys 8", "the argument '--tiles <N>' cannot be used with"),
        of("npu build --config tiles", "invalid value 'tiles' for '--config <NAME>': expected tile-core, tile-column"),
        of("compare \u{202e}zpn.a b.npz", r"\u{202e}zpn.a: cannot read it: "),
        of("npu build --device npu3", "invalid value 'npu3' for '--device <NPU>'; [possible values: npu1, npu2]"),
    ]);
    cases
}

fn numbers() -> Vec<Case> {
    let with = |options: &str, message: &str| {
        let case = case(format!("options: {options}"), &format!("{RUN} {options}"), message);
        case.file("in.npz", good())
    };
    let mut cases = vec![
        with("--valid-keys 5", "in.npz: valid keys: got 5, expected at most 4"),
        with("--valid-keys 18446744073709551615", "in.npz: valid keys: got 18446744073709551615, expected at most 4"),
        with("--valid-keys=-1", "invalid value '-1' for '--valid-keys <N>'"),
        with("--valid-keys=x", "invalid value 'x' for '--valid-keys <N>'"),
        with("--valid-keys=1.5", "invalid value '1.5' for '--valid-keys <N>'"),
        with("--valid-keys 18446744073709551616", "invalid value '18446744073709551616' for '--valid-keys <N>'"),
        with("--causal=-1", "invalid value '-1' for '--causal[=<OFFSET>]'"),
        with("--causal=x", "invalid value 'x' for '--causal[=<OFFSET>]'"),
        with("--causal 1", "unexpected argument '1' found"),
        with("--out-scale 1e-9", "in.npz: head 0: output scale: got 1e-9, expected 1.52587890625e-5 to 6.5536e4"),
        with("--out-scale 1e9", "in.npz: head 0: output scale: got 1e9, expected 1.52587890625e-5 to 6.5536e4"),
        with("--timeout 0", "invalid value '0' for '--timeout <SECONDS>'"),
        with("--timeout 86401", "invalid value '86401' for '--timeout <SECONDS>'"),
    ];
    for scale in ["0", "-0", "-1", "nan", "-nan", "inf", "-inf", "infinity", "1e-60", "1e60", "w", "V", "0x1", "1,5"] {
        let message = format!(
            "invalid value '{scale}' for '--out-scale <calibrated|v|NUMBER>': got {scale}, expected calibrated, v, or a \
             positive number in the range of float32"
        );
        cases.push(with(&format!("--out-scale={scale}"), &message));
    }
    for (shape, message) in [
        ("8x1500x64", "got `8x1500x64`, expected four numbers, HEADSxQUERIESxKEYSxDIM"),
        ("1x4x5x8.5", "got `1x4x5x8.5`, expected four numbers"),
        ("1x4x5x-8", "got `1x4x5x-8`, expected four numbers"),
        ("1x4x0x8", "got 1x4x0x8, expected no zero in it"),
        ("1x4x5x7", "got 7, expected 8 to 256"),
        ("1x4x5x300", "got 300, expected 8 to 256"),
        ("1x4x1048577x8", "got 1048577, expected at most 1048576"),
        ("64x1x1048576x64", "got 64x1x1048576x64, expected at most 67108864 elements in a tensor of it"),
        ("9223372036854775807x9x9x8", "got 9223372036854775807x9x9x8, expected at most 67108864 elements"),
        ("99999999999999999999x1x1x8", "got `99999999999999999999x1x1x8`, expected four numbers"),
    ] {
        let shown = format!("invalid value '{shape}' for '--shape <HxMxNxD>': ");
        let case = case(format!("bench: {shape}"), &format!("bench --shape {shape}"), shown);
        cases.push(case.containing(message));
    }
    for (option, value) in [
        ("--threads <N>", "0"),
        ("--threads <N>", "1025"),
        ("--threads <N>", "-1"),
        ("--rounds <N>", "0"),
        ("--rounds <N>", "1000001"),
        ("--rounds <N>", "many"),
    ] {
        let name = option.split(' ').next().expect("a name");
        let message = format!("invalid value '{value}' for '{option}'");
        cases.push(case(format!("bench: {name} {value}"), &format!("bench {name}={value}"), message));
    }
    cases.push(case("doctor: --timeout 0", "doctor --timeout 0", "invalid value '0' for '--timeout <SECONDS>'"));
    cases
}

fn backends() -> Vec<Case> {
    let mut cases = Vec::new();
    for command in [RUN, "validate --input in.npz", "bench"] {
        let mut refused = |backend: &str, message: &str| {
            let case = case(format!("{command}: {backend}"), &format!("{command} --backend {backend}"), message);
            cases.push(case.file("in.npz", good()));
        };
        let names = "[possible values: scalar, avx512-vnni, avx512-bw, avx-vnni, avx2, kernel, aie2-model, npu, auto]";
        refused("gpu", &format!("invalid value 'gpu' for '--backend <NAME>'; {names}"));
        refused("Scalar", "invalid value 'Scalar' for '--backend <NAME>'");
        refused("npu", "backend npu: got no xclbin, expected --xclbin FILE");
        #[cfg(not(any(feature = "xrt-shim", feature = "xrt")))]
        refused("npu --xclbin missing.xclbin", "backend npu: this program was built without XRT");
        for isa in Isa::ALL.into_iter().filter(|isa| !isa.is_available()) {
            refused(isa.name(), &format!("backend {}: this CPU does not have it", isa.name()));
        }
    }
    for (command, backend) in [
        (&format!("{RUN} --backend auto")[..], "auto"),
        (RUN, "scalar"),
        ("validate", "scalar"),
        ("validate --input in.npz --backend kernel", "kernel"),
        ("bench", "scalar"),
        ("bench --backend aie2-model --backend auto", "aie2-model"),
    ] {
        let message = format!("backend {backend}: got xclbin no\\n.xclbin, expected none, or backend npu");
        let case = case(format!("{command}: an xclbin"), &format!("{command} --xclbin"), message);
        cases.push(case.argument("no\n.xclbin").file("in.npz", good()));
    }
    let message = "--for cpu: got --xclbin attn.xclbin, expected none, or --for npu";
    cases.push(case("doctor: an xclbin", "doctor --for cpu --xclbin attn.xclbin", message));
    // Beside others, it has its xclbin all the same.
    #[cfg(not(any(feature = "xrt-shim", feature = "xrt")))]
    for backends in ["--backend npu --backend auto", "--backend auto --backend npu"] {
        let arguments = format!("bench {backends} --xclbin attn.xclbin");
        cases.push(case(
            format!("backends: {arguments}"),
            &arguments,
            "backend npu: this program was built without XRT",
        ));
    }
    let masked = fs::read(fixture("tests/npz/mask.npz")).expect("a fixture");
    for backend in ["kernel", "aie2-model"] {
        let kind: attn::backend::BackendKind = backend.parse().expect("a backend");
        let message = match kind.open(&attn::backend::Options::default()) {
            Ok(_) => "in.npz: mask of head 0: got a boolean mask, expected valid keys, causal, or both".to_owned(),
            Err(error) => error.to_string(),
        };
        for command in [RUN, "validate --input in.npz", "validate --json --input in.npz"] {
            let arguments = format!("{command} --backend {backend}");
            let case = case(format!("{arguments}: a boolean mask"), &arguments, message.clone());
            cases.push(case.file("in.npz", masked.clone()));
        }
    }
    cases
}

/// Made by XRT's `xclbinutil`.
pub(crate) fn xclbin() -> Vec<u8> {
    fs::read(fixture("crates/attn-npu/tests/xclbin/stand_in.xclbin")).expect("a fixture")
}

fn xclbins() -> Vec<Case> {
    let whole = xclbin();
    let patched = |at: usize, new: &[u8]| {
        let mut bytes = whole.clone();
        bytes[at..][..new.len()].copy_from_slice(new);
        bytes
    };
    let of = |name: &str, bytes: Vec<u8>, message: &str| {
        ["npu inspect attn.xclbin", "npu inspect attn.xclbin --json"].map(|command| {
            let case = case(format!("{command}: {name}"), command, format!("attn.xclbin: {message}"));
            case.file("attn.xclbin", bytes.clone())
        })
    };
    let place = whole.windows(7).position(|bytes| bytes == b"id=\"0\" ").expect("an argument");
    let cut = |length: usize, expected: usize| {
        let message = format!("it is cut off: got {length} bytes, expected {expected}: build or copy it again");
        of(&format!("cut to {length}"), whole[..length].to_vec(), &message)
    };
    let mut cases: Vec<Case> = [
        of("empty", vec![], "the file is empty, expected an xclbin"),
        of("one byte", b"x".to_vec(), r#"not an xclbin: it starts with "x", expected "xclbin2\0""#),
        of(
            "an ELF file",
            b"\x7fELF\x02\x01\x01\0\0".to_vec(),
            r#"not an xclbin: it starts with "\x7fELF\x02\x01\x01\x00", expected "xclbin2\0""#,
        ),
        of("a terminal's commands", b"\x1b[2J\r\n\x07".to_vec(), r#"not an xclbin: it starts with "\x1b[2J\r\n\x07""#),
        of("appended to", [&whole[..], b"x"].concat(), "something was appended: got 6523 bytes, expected 6522"),
        of("2^32 - 1 sections", patched(448, &[0xff; 4]), "table of sections: got 4294967295 x 40 bytes from byte 456"),
        of("a section that begins nowhere", patched(456 + 24, &[0xff; 8]), "section: got "),
        of("a section of 2^64 - 1 bytes", patched(456 + 32, &[0xff; 8]), "section: got 18446744073709551615 x 1 bytes"),
        of(
            "a length of 2^64 - 1",
            patched(304, &[0xff; 8]),
            "it is cut off: got 6522 bytes, expected 18446744073709551615",
        ),
        of("an argument of a terminal's commands", patched(place + 4, b"\x1b"), "EMBEDDED_METADATA, byte "),
        cut(8, 456),
        cut(455, 456),
        cut(456, 6522),
        cut(5000, 6522),
        cut(6521, 6522),
    ]
    .into_iter()
    .flatten()
    .collect();
    let no_file = format!("cannot read it: {NO_FILE}");
    let path = |name: &str, path: &str, message: &str| {
        case(format!("inspect: {name}"), &format!("npu inspect {path}"), format!("{path}: {message}"))
    };
    cases.extend([
        path("missing", "missing.xclbin", "cannot read it: No such file"),
        path("a folder", ".", &no_file),
        path("a pipe that nobody writes", "pipe", &no_file).make(pipe),
        path("without an end", "/dev/zero", &no_file),
        // No byte of it is on the disk.
        path("a TiB", "large", "cannot read it: got 1099511627776 bytes, expected at most 268435456")
            .make(|folder| fs::File::create(folder.join("large"))?.set_len(1 << 40)),
        case("inspect: a name of a terminal's commands", "npu inspect", r"\u{1b}[2J\n: not an xclbin: ")
            .argument("\x1b[2J\n")
            .file("\x1b[2J\n", "x"),
    ]);
    let beside = |name: &str, message: &str| {
        let case =
            case(format!("manifest: {name}"), "npu inspect attn.xclbin", format!("attn.json: no manifest: {message}"));
        case.file("attn.xclbin", whole.clone())
    };
    cases.extend([
        beside("empty", "").file("attn.json", ""),
        beside("no object", "").file("attn.json", "[1"),
        beside("without anything", "missing field ").file("attn.json", "{}"),
        beside("a terminal's commands", "").file("attn.json", "{\"\x1b[2J\": \"\r\n\"}"),
        beside("nested deeply", "").file("attn.json", "[".repeat(1 << 20)),
        beside("a long key", "").file("attn.json", format!("{{\"device\": \"npu1\", \"{}\": 1}}", "x".repeat(1 << 20))),
        beside("no text", "").file("attn.json", [0xff; 100]),
        beside("a folder", NO_FILE).make(|folder| fs::create_dir(folder.join("attn.json"))),
        beside("without an end", NO_FILE).make(|folder| symlink("/dev/zero", folder.join("attn.json"))),
        beside("a pipe", NO_FILE).make(|folder| {
            pipe(folder)?;
            fs::rename(folder.join("pipe"), folder.join("attn.json"))
        }),
        beside("a TiB", "got 1099511627776 bytes, expected at most 268435456")
            .make(|folder| fs::File::create(folder.join("attn.json"))?.set_len(1 << 40)),
    ]);
    cases
}

/// The doctor's findings are no errors: it says what it found.
#[test]
fn a_doctor_finds_what_is_no_xclbin() {
    let named = case("named", "doctor --xclbin", "").argument("\x1b[2J\n").file("\x1b[2J\n", "x");
    let large = case("large", "doctor --xclbin large", "");
    for case in [
        named,
        large.make(|folder| fs::File::create(folder.join("large"))?.set_len(1 << 40)),
        case("missing", "doctor --xclbin missing.xclbin", ""),
        case("a folder", "doctor --xclbin .", ""),
        case("without an end", "doctor --xclbin /dev/zero", ""),
        case("a pipe", "doctor --xclbin pipe", "").make(pipe),
        case("cut off", "doctor --xclbin cut", "").file("cut", &xclbin()[..600]),
    ] {
        let output = case.output();
        let text = String::from_utf8(output.stdout).expect("text");
        assert_eq!((output.status.code(), &output.stderr[..]), (Some(1), &b""[..]), "{}: {text}", case.name);
        assert!(text.lines().count() > 10 && text.lines().all(|line| !line.contains(char::is_control)), "{text:?}");
    }
}

fn designs() -> Vec<Case> {
    let most = usize::MAX;
    [
        ("--columns 5".to_owned(), "columns: got 5, expected 1 to 4"),
        (format!("--columns {most}"), "columns: got 18446744073709551615, expected 1 to 4"),
        ("--columns 0".to_owned(), "columns: got 0, expected 1 to 4"),
        (format!("--rows {most}"), "cores of a column: got 18446744073709551615, expected 1 to 4"),
        ("--rows 0".to_owned(), "cores of a column: got 0, expected 1 to 4"),
        (format!("--tiles {most}"), "32-bit words of a transfer: got "),
        ("--tiles 0".to_owned(), "tiles of a core: got 0, expected at least 1"),
        (format!("--dim {most}"), "stored columns of a head: got 18446744073709551615, expected 16 to 256"),
        ("--dim 0".to_owned(), "stored columns of a head: got 0, expected 16 to 256"),
        ("--dim 257".to_owned(), "stored columns of a head: got 272, expected 16 to 256"),
        (format!("--depth {most}"), "objects of a kind in a core: got 18446744073709551615, expected 1 to 2"),
        ("--depth 0".to_owned(), "objects of a kind in a core: got 0, expected 1 to 2"),
        (format!("--heads {most} --queries {most} --keys {most}"), "heads: got 18446744073709551615, expected "),
        (format!("--heads 4 --queries {most} --keys 64"), ""),
        (format!("--heads 4 --queries 64 --keys {most}"), ""),
        ("--heads 4 --queries 0 --keys 64".to_owned(), ""),
        ("--heads 4 --queries 64 --keys 0".to_owned(), ""),
    ]
    .into_iter()
    .map(|(options, message)| {
        case(format!("design: {options}"), &format!("npu build --dry-run {options}"), "design npu1-")
            .containing(message)
    })
    .collect()
}

fn environments() -> Vec<Case> {
    let none = |command: &str| {
        let case = case(format!("{command}: no room for a thread"), command, "threads: cannot start ");
        case.file("in.npz", good()).environment("RUST_MIN_STACK", "999999999999999")
    };
    let build = |name: &'static str, folder: &'static str, message: &str| {
        case(format!("tools: {name}"), "npu build", message).environment("PEANO_INSTALL_DIR", folder)
    };
    let many = |command: &str| {
        let message = "threads: got RAYON_NUM_THREADS=1025, expected at most 1024";
        let case = case(format!("{command}: too many threads"), command, message);
        case.file("in.npz", good()).environment("RAYON_NUM_THREADS", "1025")
    };
    vec![
        many("validate"),
        many("doctor --for cpu"),
        many(RUN),
        none("validate --input in.npz"),
        none("validate --json"),
        none("doctor --for cpu"),
        none(RUN),
        build("nowhere", "/nowhere", "Peano's bin/clang++: not found in PEANO_INSTALL_DIR=/nowhere")
            .containing("pip install llvm-aie"),
        build(
            "two lines",
            "/no\nwhere\x1b[2J",
            r"Peano's bin/clang++: not found in PEANO_INSTALL_DIR=/no\nwhere\u{1b}[2J",
        ),
        build("a file", "/dev/null", "Peano's bin/clang++: not found in PEANO_INSTALL_DIR=/dev/null"),
    ]
}

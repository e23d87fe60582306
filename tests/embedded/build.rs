//! How the program is linked: without the C library, its start-up code, or anything that a loader would have to do. And what
//! it compares with: the committed vectors and snapshots, as constants.

use std::{
    env,
    fmt::Write as _,
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use half::f16;
use zip::ZipArchive;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

fn main() {
    link();
    let mut code = String::new();
    let mut largest = 0;
    for part in [exponential, attentions, snapshots] {
        largest = part(&mut code).max(largest);
    }
    writeln!(code, "/// Elements of the largest tensor or mask.\npub const LARGEST: usize = {largest};").unwrap();
    fs::write(out_dir().join("expected.rs"), code).unwrap();
    println!("cargo::rerun-if-changed=build.rs");
}

fn link() {
    let variable = |name| env::var(name).unwrap();
    let target = [variable("CARGO_CFG_TARGET_OS"), variable("CARGO_CFG_TARGET_ARCH")];
    let arguments: &[&str] = match target.each_ref().map(String::as_str) {
        ["linux", "x86_64"] => &["-nostartfiles", "-nodefaultlibs", "-static", "-no-pie"],
        ["none", "arm"] => &[concat!("-T", env!("CARGO_MANIFEST_DIR"), "/cortex_m.ld")],
        _ => &[],
    };
    for argument in arguments {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
    println!("cargo::rerun-if-changed=cortex_m.ld");
}

fn out_dir() -> PathBuf {
    env::var_os("OUT_DIR").unwrap().into()
}

/// A committed file; what is made of it is made again when it changes.
fn committed(path: &str) -> PathBuf {
    let path = Path::new(ROOT).join(path).canonicalize().unwrap_or_else(|error| panic!("{path}: {error}"));
    println!("cargo::rerun-if-changed={}", path.display());
    path
}

/// The lines of a vector, without its comments.
fn lines(path: &str) -> Vec<String> {
    let text = fs::read_to_string(committed(path)).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

/// `EXP2`; returns the elements of the largest tensor.
fn exponential(code: &mut String) -> usize {
    let lines = lines("crates/attn-fixed/vectors/exp2.csv");
    let values = lines.iter().skip(1).enumerate().map(|(distance, line)| {
        let (first, second) = line.split_once(',').unwrap();
        assert_eq!(first.parse(), Ok(distance));
        second.parse().unwrap()
    });
    let values: Vec<i16> = values.collect();
    writeln!(code, "/// `vectors/exp2.csv`\npub static EXP2: [i16; 2048] = {values:?};").unwrap();
    0
}

/// `ATTENTIONS`; returns the elements of the largest tensor.
fn attentions(code: &mut String) -> usize {
    let lines = lines("crates/attn-fixed/vectors/attention.csv");
    let mut largest = 0;
    writeln!(code, "/// `vectors/attention.csv`\npub static ATTENTIONS: &[Attention] = &[").unwrap();
    for line in &lines[1..] {
        let fields: Vec<_> = lines[0].split(',').zip(line.split(',')).collect();
        let [dim, queries, keys] = ["dim", "queries", "keys"].map(|name| {
            fields
                .iter()
                .find_map(|(field, number)| (*field == name).then(|| number.parse::<usize>()))
                .unwrap()
                .unwrap()
        });
        largest = largest.max(queries * dim).max(keys * dim).max(queries * keys);
        let fields = fields.iter().map(|(name, number)| match *name {
            "dim" | "keys" => format!("{name}: NonZero::new({number}).unwrap()"),
            "query" | "key" | "value" | "out" => format!("{name}: {number}_f32"),
            "fnv1a" | "fnv1a_floats" => format!("{name}: 0x{number}"),
            _ => format!("{name}: {number}"),
        });
        writeln!(code, "Attention {{ {} }},", fields.collect::<Vec<_>>().join(", ")).unwrap();
    }
    writeln!(code, "];").unwrap();
    largest
}

/// `SNAPSHOTS`, every one of the conformance suite; returns the elements of the largest tensor.
fn snapshots(code: &mut String) -> usize {
    let folder = committed("tests/snapshots");
    let files = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<_> = files.filter_map(|file| Some(file.strip_prefix("conformance__")?.to_owned())).collect();
    files.sort();
    let mut largest = 0;
    let mut floats = files.iter().filter(|file| file.ends_with("_floats.snap")).count();
    writeln!(code, "/// The snapshots of tests/conformance.rs.\npub static SNAPSHOTS: &[Snapshot] = &[").unwrap();
    for stem in files.iter().filter_map(|file| file.strip_suffix(".snap.bin")) {
        let layer = |prefix| stem.strip_prefix(prefix).and_then(|layer| layer.parse().ok());
        // As tests/conformance.rs cuts them.
        let (file, head, keys, rows) = match (stem, layer("whisper_layer_"), layer("whisper_head_layer_")) {
            ("acceptance", ..) => ("acceptance.npz", 0, 64, 0..64),
            (_, Some(layer), _) => ("whisper.npz", layer, 1500, 640..704),
            (_, _, Some(layer)) => ("whisper.npz", layer, 1500, 0..1500),
            _ => panic!("snapshot {stem}: its inputs are not known here"),
        };
        let tensors = ["q", "k", "v"].map(|name| {
            let elements = array(file, name);
            let elements = &elements[64 * (head * keys + rows.start)..][..64 * rows.len()];
            largest = largest.max(elements.len());
            let path = out_dir().join(format!("{stem}.{name}"));
            fs::write(&path, elements.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>()).unwrap();
            format!("include_bytes!({path:?})")
        });
        let int8 = folder.join(format!("conformance__{stem}.snap.bin"));
        let hash = fs::read_to_string(folder.join(format!("conformance__{stem}_floats.snap"))).ok().map(|text| {
            floats -= 1;
            let hash = text.lines().find_map(|line| line.strip_prefix("fnv1a: ")).unwrap();
            u64::from_str_radix(hash, 16).unwrap()
        });
        writeln!(
            code,
            "Snapshot {{ name: {stem:?}, truncated: {}, tensors: [{}], int8: include_bytes!({int8:?}), floats: {hash:?} }},",
            stem == "acceptance",
            tensors.join(", ")
        )
        .unwrap();
    }
    writeln!(code, "];").unwrap();
    assert_eq!(floats, 0, "snapshots of floats without one of int8");
    largest
}

/// An array of a fixture: `[.., 64]`, little-endian in C order.
fn array(file: &str, name: &str) -> Vec<f32> {
    let file = fs::File::open(committed(&format!("src/suite/data/{file}"))).unwrap();
    let mut archive = ZipArchive::new(io::BufReader::new(file)).unwrap();
    let mut bytes = Vec::new();
    archive.by_name(&format!("{name}.npy")).unwrap().read_to_end(&mut bytes).unwrap();
    // Numpy's format 1.0: the length of the header is in bytes 8 and 9.
    assert!(bytes.starts_with(b"\x93NUMPY\x01\0"));
    let (header, elements) = bytes[10..].split_at(u16::from_le_bytes([bytes[8], bytes[9]]).into());
    let header = str::from_utf8(header).unwrap();
    assert!(header.contains("'fortran_order': False") && header.contains(", 64), }"), "{header}");
    match header {
        _ if header.contains("'<f2'") => elements.as_chunks().0.iter().map(|x| f16::from_le_bytes(*x).into()).collect(),
        _ if header.contains("'<f4'") => elements.as_chunks().0.iter().map(|x| f32::from_le_bytes(*x)).collect(),
        _ => panic!("{header}"),
    }
}

//! Whatever an archive says: it is read or refused, what is read is what it holds, and no more memory is taken than in proportion
//! to that.
#![no_main]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    io::{Cursor, Read, Write},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use attn::{
    mask::HeadMasks,
    npz::{self, Inputs, Output, OutputValues, Values},
};
use attn_fuzz::{Valid, mutate, replace};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use zip::{CompressionMethod, ZipArchive, ZipWriter, write::SimpleFileOptions};

/// The system's allocator, counting.
struct Counting;

static BYTES: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is the system's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let bytes = BYTES.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(bytes, Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static VALID: Valid = Valid::new();

fuzz_target!(|file: &[u8]| {
    VALID.run();
    let held = held(file);
    let inputs = within(held, || npz::read_from(Cursor::new(file), "file"));
    let output = within(held, || Output::read_from(Cursor::new(file), "file"));
    if let Ok(inputs) = &inputs {
        check_inputs(file, inputs);
    }
    if let Ok(output) = &output {
        check_output(file, output);
    }
    if inputs.is_ok() || output.is_ok() {
        VALID.valid();
    }
});

/// Calls `f`, which may take memory for the bytes that an archive holds, not for those that it claims: each of them is there as it
/// was read and as a float64, and a vector that grows is there twice.
fn within<T>(held: usize, f: impl FnOnce() -> T) -> T {
    let before = BYTES.load(Relaxed);
    PEAK.store(before, Relaxed);
    let result = f();
    let peak = PEAK.load(Relaxed) - before;
    let room = 16 * held + (256 << 10);
    assert!(peak <= room, "{peak} bytes were taken at once for an archive that holds {held}");
    result
}

/// Bytes of an archive and of all that is in it.
fn held(file: &[u8]) -> usize {
    let mut held = file.len();
    let Ok(mut zip) = ZipArchive::new(Cursor::new(file)) else { return held };
    for i in 0..zip.len() {
        let Ok(mut member) = zip.by_index(i) else { continue };
        let mut buffer = [0; 4096];
        while let Ok(bytes @ 1..) = member.read(&mut buffer) {
            held += bytes;
        }
    }
    held
}

fn check_inputs(file: &[u8], inputs: &Inputs) {
    let &Inputs { heads, kv_heads, queries, keys, dim, .. } = inputs;
    let [query_len, key_len] = [heads * queries * dim, kv_heads * keys * dim];
    assert!(query_len > 0 && key_len > 0 && heads.is_multiple_of(kv_heads));
    assert_eq!(inputs.query_shape.iter().product::<usize>(), query_len);
    assert!(inputs.query_shape.ends_with(&[queries, dim]));
    match &inputs.values {
        Values::Float(values) => {
            for (name, values, len) in
                [("q", &values.query, query_len), ("k", &values.key, key_len), ("v", &values.value, key_len)]
            {
                assert_eq!(values.len(), len);
                assert!(values.iter().all(|x| x.is_finite()));
                check_bytes(file, name, "'<f4'", values.iter().map(|x| x.to_le_bytes()));
            }
        }
        Values::Int8 { values, scales } => {
            for (name, values, len, scales, heads) in [
                ("q", &values.query, query_len, &scales.query, heads),
                ("k", &values.key, key_len, &scales.key, kv_heads),
                ("v", &values.value, key_len, &scales.value, kv_heads),
            ] {
                assert_eq!((values.len(), scales.len()), (len, heads));
                assert!(scales.iter().all(|&scale| scale > 0.0 && scale.is_finite()));
                check_bytes(file, name, "'|i1'", values.iter().map(|x| x.to_le_bytes()));
            }
        }
    }
    let masks = HeadMasks { allowed: inputs.mask.clone(), ..HeadMasks::default() };
    for head in 0..heads {
        masks.head(head).check(queries, keys).expect("a mask of these heads");
    }
}

fn check_output(file: &[u8], output: &Output) {
    let len = output.shape.iter().product::<usize>();
    assert!(output.shape.len() >= 2 && len > 0);
    match &output.values {
        OutputValues::Float(values) => {
            assert_eq!(values.len(), len);
            assert!(values.iter().all(|x| x.is_finite()));
            check_bytes(file, "out", "'<f8'", values.iter().map(|x| x.to_le_bytes()));
        }
        OutputValues::Int8 { values, scales } => {
            assert_eq!((values.len(), scales.len()), (len, output.heads()));
            assert!(scales.iter().all(|&scale| scale > 0.0 && scale.is_finite()));
            check_bytes(file, "out", "'|i1'", values.iter().map(|x| x.to_le_bytes()));
        }
    }
}

/// Where an array is of this type, in C order: its elements are the end of the member, behind a header that is not looked at twice.
fn check_bytes<const N: usize>(file: &[u8], name: &str, descr: &str, elements: impl Iterator<Item = [u8; N]>) {
    let mut zip = ZipArchive::new(Cursor::new(file)).expect("it was read");
    let mut member = Vec::new();
    zip.by_name(&format!("{name}.npy")).expect("it was read").read_to_end(&mut member).expect("it was read");
    let elements: Vec<u8> = elements.flatten().collect();
    let Some((header, data)) = member.len().checked_sub(elements.len()).map(|start| member.split_at(start)) else { return };
    let header = String::from_utf8_lossy(header);
    if header.contains(&format!("'descr': {descr}, 'fortran_order': False, ")) {
        assert_eq!(data, elements, "{name}");
    }
}

/// A member of an archive: its name without `.npy`, and its bytes.
type Member = (String, Vec<u8>);

const NAMES: [&str; 9] = ["q", "k", "v", "q_scale", "k_scale", "v_scale", "mask", "out", "out_scale"];

// Sometimes all is new; as often as not what is in the archive is changed and packed again, with checksums that are right; else any bytes.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut rng = fastrand::Rng::with_seed(seed.into());
    let other = match rng.u8(..16) {
        0..3 => Some(inputs(&mut rng)),
        3..9 => members(&data[..size]).map(|members| changed(members, &mut rng)),
        _ => None,
    };
    other
        .and_then(|members| replace(&mut data[..max_size], &packed(&members, &mut rng)))
        .unwrap_or_else(|| fuzzer_mutate(data, size, max_size))
});

fn members(file: &[u8]) -> Option<Vec<Member>> {
    let mut zip = ZipArchive::new(Cursor::new(file)).ok()?;
    let mut members = Vec::new();
    for i in 0..zip.len() {
        let Ok(member) = zip.by_index(i) else { continue };
        let Some(name) = member.name().ok().and_then(|name| Some(name.strip_suffix(".npy")?.to_owned())) else {
            continue;
        };
        let mut bytes = Vec::new();
        // Also the part of a damaged member that is whole.
        _ = member.take(1 << 16).read_to_end(&mut bytes);
        members.push((name, bytes));
    }
    (!members.is_empty()).then_some(members)
}

fn packed(members: &[Member], rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        let method = if rng.bool() { CompressionMethod::Stored } else { CompressionMethod::Deflated };
        // A name that is there already is refused.
        if zip.start_file(format!("{name}.npy"), SimpleFileOptions::default().compression_method(method)).is_ok() {
            zip.write_all(bytes).expect("memory");
        }
    }
    zip.finish().expect("memory").into_inner()
}

/// One member more, less, with another name, with other bytes, or of another type or shape.
fn changed(mut members: Vec<Member>, rng: &mut fastrand::Rng) -> Vec<Member> {
    let i = rng.usize(..members.len());
    match rng.u8(..8) {
        0 => _ = members.remove(i),
        1 => members[i].0 = (*rng.choice(NAMES).expect("some")).to_owned(),
        2 => members.push(((*rng.choice(NAMES).expect("some")).to_owned(), members[i].1.clone())),
        3 => {
            let shape: Vec<usize> = (0..rng.usize(..5)).map(|_| rng.usize(..5)).collect();
            let descr = *rng.choice(&DESCRS).expect("some");
            members[i].1 = array(descr, &shape, rng);
        }
        _ => mutate(&mut members[i].1, 64),
    }
    members
}

/// Types that some array may have, and one that none has.
const DESCRS: [(&str, usize); 9] =
    [("<f2", 2), (">f2", 2), ("<f4", 4), (">f4", 4), ("<f8", 8), ("|i1", 1), ("|b1", 1), ("<i8", 8), ("<c8", 8)];

/// Inputs of attention that fit each other.
fn inputs(rng: &mut fastrand::Rng) -> Vec<Member> {
    let descr = DESCRS[rng.usize(..6)];
    let kv_lead: Vec<usize> = (0..rng.usize(..3)).map(|_| rng.usize(1..4)).collect();
    let mut lead = kv_lead.clone();
    if let Some(heads) = lead.last_mut() {
        *heads *= rng.usize(1..3);
    }
    let [queries, keys, dim] = [(); 3].map(|()| rng.usize(1..9));
    let shape = |lead: &[usize], rows: [usize; 2]| [lead, &rows].concat();
    let mut members = Vec::new();
    for (name, lead, rows) in [("q", &lead, queries), ("k", &kv_lead, keys), ("v", &kv_lead, keys)] {
        members.push((name.to_owned(), array(descr, &shape(lead, [rows, dim]), rng)));
        if descr.0 == "|i1" {
            let shape = if rng.bool() { &lead[..] } else { &[] };
            members.push((format!("{name}_scale"), array(DESCRS[rng.usize(..5)], shape, rng)));
        }
    }
    if rng.bool() {
        let shape = shape(if rng.bool() { &lead } else { &[] }, [queries, rng.choice([1, keys]).expect("two")]);
        members.push(("mask".to_owned(), array(("|b1", 1), &shape, rng)));
    }
    members
}

/// An array in the npy format, of elements between 1 and 2 where they are floats.
fn array((descr, size): (&str, usize), shape: &[usize], rng: &mut fastrand::Rng) -> Vec<u8> {
    let shape_text: String = shape.iter().map(|length| format!("{length}, ")).collect();
    let order = if rng.u8(..4) > 0 { "False" } else { "True" };
    let header = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': ({shape_text}), }}\n");
    let mut array = b"\x93NUMPY\x01\0".to_vec();
    array.extend((header.len() as u16).to_le_bytes());
    array.extend(header.bytes());
    for _ in 0..shape.iter().product() {
        let mut element = vec![0; size];
        element[0] = rng.u8(..);
        if descr.contains('f') {
            // The sign, the exponent's bits and the first of the mantissa's.
            let last = size - 1;
            (element[last], element[last - 1]) = match size {
                2 => (0x3c, rng.u8(..)),
                4 => (0x3f, 0x80),
                _ => (0x3f, 0xf0),
            };
        }
        if descr.starts_with('>') {
            element.reverse();
        }
        array.extend(element);
    }
    array
}

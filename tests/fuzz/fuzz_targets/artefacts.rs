//! What lies beside an xclbin, a manifest or an instruction sequence: it is read or refused, and what is read is what was written.
#![no_main]

use std::collections::HashSet;

use attn_fuzz::{Valid, mutate, replace};
use attn_npu::{
    build::{Instructions, Manifest},
    design::Form,
};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

/// Where a sequence has its length.
const LENGTH: usize = 12;

static VALID: Valid = Valid::new();

fuzz_target!(|file: &[u8]| {
    VALID.run();
    if is_manifest(file) {
        let Ok(manifest) = Manifest::from_json(file) else { return };
        VALID.valid();
        assert_eq!(Manifest::from_json(manifest.to_json().as_bytes()).expect("as it was written"), manifest);
        if let Ok(design) = manifest.design() {
            assert!(design.columns <= design.device.columns());
            // Its text has some lines for each head, and there may be 65 536.
            if !matches!(design.form, Form::Sequence { heads: 1000.., .. }) {
                design.mlir().expect("within the limits of the hardware");
            }
        }
    } else if let Ok(header) = Instructions::parse(file) {
        VALID.valid();
        assert_eq!(header.bytes as usize, file.len());
        let Ok(reach) = Instructions::reach(file) else { return };
        // Each argument is reached by an operation of its own, at a place and with a length that the sequence has.
        let words: HashSet<u64> = file.as_chunks().0.iter().map(|&word| u32::from_le_bytes(word).into()).collect();
        for bytes in reach.into_iter().filter(|&bytes| bytes > 0) {
            let mut offsets = words.iter().filter(|&&offset| offset <= bytes && (bytes - offset) % 4 == 0);
            assert!(offsets.any(|offset| words.contains(&((bytes - offset) / 4))), "{bytes}");
        }
    }
});

fn is_manifest(file: &[u8]) -> bool {
    file.starts_with(b"{")
}

// Numbers of a manifest, words of a sequence, else any bytes; and mostly a sequence says how long it is, else it is refused at
// once.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut rng = fastrand::Rng::with_seed(seed.into());
    let other = match rng.u8(..4) {
        0 => None,
        _ if is_manifest(&data[..size]) => with_number(&data[..size], &mut rng),
        _ => with_word(&data[..size], &mut rng),
    };
    let size = other
        .and_then(|file| replace(&mut data[..max_size], &file))
        .unwrap_or_else(|| fuzzer_mutate(data, size, max_size));
    if rng.u8(..16) == 0 || is_manifest(&data[..size]) {
        return size;
    }
    let size = size & !3;
    if let Some(length) = data[..size].get_mut(LENGTH..LENGTH + 4) {
        length.copy_from_slice(&(size as u32).to_le_bytes());
    }
    size
});

/// The manifest with another number in its design, or another device.
fn with_number(file: &[u8], rng: &mut fastrand::Rng) -> Option<Vec<u8>> {
    let mut manifest = Manifest::from_json(file).ok()?;
    if rng.u8(..8) == 0 {
        manifest.device = if manifest.device == "npu1" { "npu2" } else { "npu1" }.to_owned();
        return Some(manifest.to_json().into_bytes());
    }
    let number = rng.usize(..manifest.design.len().max(1));
    let number = manifest.design.values_mut().nth(number)?;
    *number = match rng.u8(..4) {
        0 => rng.usize(..=64),
        1 => number.wrapping_add_signed(rng.isize(-2..=2)),
        2 => number.wrapping_mul(2),
        _ => rng.usize(..) >> rng.u32(..usize::BITS),
    };
    Some(manifest.to_json().into_bytes())
}

/// The sequence with another word, which may be any other that it has, or with its end gone.
fn with_word(file: &[u8], rng: &mut fastrand::Rng) -> Option<Vec<u8>> {
    let mut file = file.to_vec();
    let words = file.as_chunks_mut::<4>().0;
    if words.len() <= LENGTH / 4 + 1 {
        return None;
    }
    let (at, from) = (rng.usize(..words.len()), rng.usize(..words.len()));
    match rng.u8(..4) {
        0 => words[at] = words[from],
        1 => words[at] = u32::from_le_bytes(words[at]).wrapping_add_signed(rng.i32(-64..=64)).to_le_bytes(),
        2 => file.truncate(4 * at),
        _ => {
            let mut word = words[at].to_vec();
            mutate(&mut word, 0);
            words[at][..word.len()].copy_from_slice(&word);
        }
    }
    Some(file)
}

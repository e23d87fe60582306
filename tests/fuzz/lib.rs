//! What the fuzz targets share.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use libfuzzer_sys::fuzzer_mutate;

/// Counts the inputs that are valid: a target that is refused everything tests nothing else.
#[derive(Default)]
pub struct Valid {
    runs: AtomicUsize,
    valid: AtomicUsize,
}

impl Valid {
    /// Nothing ran yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { runs: AtomicUsize::new(0), valid: AtomicUsize::new(0) }
    }

    /// A run begins.
    ///
    /// # Panics
    /// Less than a tenth of the first 1000 were valid.
    pub fn run(&self) {
        const RUNS: usize = 1000;
        if self.runs.fetch_add(1, Relaxed) == RUNS {
            let valid = self.valid.load(Relaxed);
            println!("{valid} of the first {RUNS} inputs were valid");
            assert!(valid > RUNS / 10, "too few inputs are valid");
        }
    }

    /// Its input is valid.
    pub fn valid(&self) {
        self.valid.fetch_add(1, Relaxed);
    }
}

/// Changes bytes as libFuzzer does it; up to `growth` are added.
pub fn mutate(bytes: &mut Vec<u8>, growth: usize) {
    let size = bytes.len();
    bytes.resize(size + growth, 0);
    let size = fuzzer_mutate(bytes, size, size + growth);
    bytes.truncate(size);
}

/// Writes a mutated input over the one that it was made of; none if there is no room.
pub fn replace(input: &mut [u8], by: &[u8]) -> Option<usize> {
    input.get_mut(..by.len())?.copy_from_slice(by);
    Some(by.len())
}

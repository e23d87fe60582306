//! Memory: nothing is allocated after the first call of a shape, and what the first one takes grows with the sequence.
#![expect(unsafe_code, reason = "an allocator")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use attn_cpu::{Attention, Isa};
use attn_fixed::{FloatHeads, Heads, Inputs, Mask, Parameters, Scales};

/// The system's allocator, counting.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is the system's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
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

const DIM: usize = 64;

/// Some numbers.
fn numbers(len: usize) -> Vec<i8> {
    (0..len as u32).map(|i| (i.wrapping_mul(0x9E37_79B1) >> 24) as i8).collect()
}

/// One after the other, for they share the counters; on this thread alone, and then what two threads allocate.
#[test]
fn memory() {
    let isas = || Isa::ALL.into_iter().filter(|isa| isa.is_available());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build().expect("one thread");
    assert_eq!(rayon::current_num_threads(), 1);
    for isa in isas() {
        nothing_is_allocated_after_the_first_call(isa);
        memory_grows_with_the_sequence(isa);
    }
    drop(pool);
    // Not earlier: threads allocate when they start.
    let two = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("two threads");
    for isa in isas() {
        threads_allocate_for_their_queues_only(isa, &two);
    }
}

fn nothing_is_allocated_after_the_first_call(isa: Isa) {
    let mut attention = Attention::new(isa).expect("available");
    // Packed and not packed.
    for (queries, keys) in [(100, 300), (2, 300)] {
        let (query, key) = (numbers(2 * queries * DIM), numbers(2 * keys * DIM));
        let scales = Scales { query: 0.01, key: 0.01, value: 1.0, out: 1.0 };
        let parameters = [Parameters::new(DIM, scales).expect("in range"); 2];
        let masks = [Mask::new().causal(50); 2];
        let inputs = Inputs { query: &query, key: &key, value: &key };
        let heads = Heads { parameters: &parameters, masks: &masks, kv_heads: 2, inputs };
        let [query, key] = [&query, &key].map(|tensor| tensor.iter().map(|&x| x.into()).collect::<Vec<f32>>());
        let query: Vec<f32> = query.iter().map(|x| x * 1e-3).collect();
        let floats = FloatHeads { dim: DIM, masks: &masks, kv_heads: 2, query: &query, key: &key, value: &key };
        let (mut out, mut float_out) = (vec![0; query.len()], vec![0.0; query.len()]);
        for call in 0..3 {
            let before = ALLOCATIONS.load(Relaxed);
            attention.attend(heads, &mut out, &|_| ()).expect("valid heads");
            attention.attend_f32(floats, &mut float_out, &|_| ()).expect("valid heads");
            let allocations = ALLOCATIONS.load(Relaxed) - before;
            assert!(call == 0 || allocations == 0, "{}: {allocations} allocations in call {call}", isa.name());
        }
    }
}

/// Rayon allocates a block of the queue through which work enters the pool now and then, not in every call; attention itself
/// allocates nothing.
fn threads_allocate_for_their_queues_only(isa: Isa, two: &rayon::ThreadPool) {
    const CALLS: usize = 100;
    let (queries, keys) = (300, 300);
    let (query, key) = (numbers(queries * DIM), numbers(keys * DIM));
    let scales = Scales { query: 0.01, key: 0.01, value: 1.0, out: 1.0 };
    let parameters = [Parameters::new(DIM, scales).expect("in range")];
    let inputs = Inputs { query: &query, key: &key, value: &key };
    let heads = Heads { parameters: &parameters, masks: &[Mask::new()], kv_heads: 1, inputs };
    let mut attention = Attention::new(isa).expect("available");
    let mut out = vec![0; query.len()];
    let mut call = || {
        assert_eq!(rayon::current_num_threads(), 2);
        attention.attend(heads, &mut out, &|_| ()).expect("a valid head");
    };
    two.install(&mut call);
    let start = ALLOCATIONS.load(Relaxed);
    two.install(|| (0..CALLS).for_each(|_| call()));
    let within = ALLOCATIONS.load(Relaxed) - start;
    (0..CALLS).for_each(|_| two.install(&mut call));
    let from_outside = ALLOCATIONS.load(Relaxed) - start - within;
    println!(
        "{:<12} {CALLS} calls on 2 threads: {within} allocations, {from_outside} where the calls are from outside the pool",
        isa.name()
    );
    // Two threads that meet for the first time allocate once, too.
    assert!(within <= 8 && from_outside <= CALLS / 4, "{}: {within}, {from_outside} allocations", isa.name());
}

fn memory_grows_with_the_sequence(isa: Isa) {
    for (queries, keys) in [(64, 1500), (1500, 1500), (64, 15_000), (1500, 15_000), (64, 60_000)] {
        let (query, key, value) = (numbers(queries * DIM), numbers(keys * DIM), numbers(keys * DIM));
        let scales = Scales { query: 0.01, key: 0.01, value: 1.0, out: 1.0 };
        let parameters = [Parameters::new(DIM, scales).expect("in range")];
        let masks = [Mask::new()];
        let inputs = Inputs { query: &query, key: &key, value: &value };
        let heads = Heads { parameters: &parameters, masks: &masks, kv_heads: 1, inputs };
        let mut out = vec![0; query.len()];
        let before = BYTES.load(Relaxed);
        PEAK.store(before, Relaxed);
        let mut attention = Attention::new(isa).expect("available");
        attention.attend(heads, &mut out, &|_| ()).expect("a valid head");
        let peak = PEAK.load(Relaxed) - before;
        // Keys and values, in bytes or 16 bits, and the bias of the keys; then what a thread works on.
        let element = if matches!(isa, Isa::Avx512Bw | Isa::Avx2) { 2 } else { 1 };
        let packed = keys.next_multiple_of(64) * (2 * DIM * element + 4);
        println!(
            "{:<12} {queries:>6} queries, {keys:>6} keys of dimension {DIM}: peak of {:>8.1} kB beside the tensors",
            isa.name(),
            peak as f64 / 1e3
        );
        assert!(
            peak <= packed + 60_000,
            "{}: {peak} bytes for {keys} keys, expected {packed} and little more",
            isa.name()
        );
    }
}

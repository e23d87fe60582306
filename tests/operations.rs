//! What the vector kernel of the NPU does for a tile, counted on the host model: `cargo test --test operations -- --nocapture`.
//!
//! The table is a snapshot: a kernel that does more, or less, shows in it.

use std::{fmt::Write as _, path::Path};

use attn::{
    Heads, Inputs, Mask, Parameters, Scales,
    backend::{Backend, BackendError, BackendKind, Options},
    npz::{self, Values},
    quantise,
};
use attn_npu::model::Operations;

/// What the published 64×64×64 GEMM of int8 took on npu1 over the instructions that its loop has slots for: the nearest kernel of
/// which both are known (3274 and 2442 cycles).
const MEASURED_OVER_BOUND: f64 = 3274.0 / 2442.0;

/// Rows of a head of a fixture, quantised.
fn rows(file: &str, head: usize, rows: std::ops::Range<usize>) -> [(Vec<i8>, f32); 3] {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/suite/data").join(file);
    let npz::Inputs { keys, dim, values, .. } = npz::read(&path).expect("a committed fixture");
    let Values::Float(tensors) = values else { panic!("{file} holds floats") };
    [tensors.query, tensors.key, tensors.value].map(|tensor| {
        let floats = &tensor[head * keys * dim..][rows.start * dim..rows.end * dim];
        let mut quantised = vec![0; floats.len()];
        let scale = quantise(floats, &mut quantised).expect("finite");
        (quantised, scale)
    })
}

/// The operations of the first `queries` rows against all, per block of 64 keys.
fn count(
    backend: &mut dyn Backend,
    dim: usize,
    queries: usize,
    tensors: &[(Vec<i8>, f32); 3],
    mask: Mask<'_>,
) -> Operations {
    let [(query, q), (key, k), (value, v)] = tensors;
    let parameters = Parameters::new(dim, Scales { query: *q, key: *k, value: *v, out: *v }).expect("in range");
    let inputs = Inputs { query: &query[..queries * dim], key, value };
    let heads = Heads { parameters: &[parameters], masks: &[mask], kv_heads: 1, inputs };
    let mut out = vec![0; queries * dim];
    Operations::of(|| backend.attend(heads, &mut out, &|_| ()).expect("a valid head"))
}

#[test]
fn of_the_vector_kernel() {
    let mut backend = match BackendKind::Aie2Model.open(&Options::default()) {
        Err(BackendError::Unavailable(error)) => {
            println!("SKIPPED {error}");
            return;
        }
        opened => opened.expect("a backend"),
    };
    let mut text = format!(
        "kernels/aie2/attention_tile.cc on the host model of an AIE2 core: operations of 64 queries with a block of 64 keys.\n\
         Not measured on an NPU. At least: the cycles that the slots of the instruction word need; acc.: additions of accumulators.\n\
         One a cycle: if there were one slot for all that is done with vectors. Scaled: that times {MEASURED_OVER_BOUND:.3}, measured\n\
         over bound of the int8 GEMM.\n\n\
         {:36}{:>6}{:>6}{:>6}{:>8}{:>6}{:>6}{:>5}{:>7}{:>6}{:>7}{:>9}{:>12}{:>8}\n",
        "",
        "mac",
        "acc.",
        "alu",
        "shuffle",
        "move",
        "srs",
        "ups",
        "load",
        "store",
        "scalar",
        "at least",
        "one a cycle",
        "scaled",
    );
    let mut line = |name: &str, operations: Operations, blocks: f64| {
        let Operations { mac, accumulate, alu, shuffle, moves, srs, ups, load, store, scalar } = operations;
        let per_block = |count: u64| (count as f64 / blocks).round();
        let one_a_cycle = per_block(operations.one_a_cycle());
        writeln!(
            text,
            "{name:36}{:6}{:6}{:6}{:8}{:6}{:6}{:5}{:7}{:6}{:7}{:9}{one_a_cycle:12}{:8.0}",
            per_block(mac),
            per_block(accumulate),
            per_block(alu),
            per_block(shuffle),
            per_block(moves),
            per_block(srs),
            per_block(ups),
            per_block(load),
            per_block(store),
            per_block(scalar),
            per_block(operations.least_cycles()),
            one_a_cycle * MEASURED_OVER_BOUND,
        )
        .expect("a string");
    };

    let acceptance = rows("acceptance.npz", 0, 0..64);
    let mut tile = |name: &str, dim, tensors: &_, mask| line(name, count(&mut *backend, dim, 64, tensors, mask), 1.0);
    tile("tile, normal numbers", 64, &acceptance, Mask::new());
    tile("the same, causal", 64, &acceptance, Mask::new().causal(0));
    tile("the same, 50 keys", 64, &acceptance, Mask::new().valid_keys(50));
    for dim in [32, 128] {
        // The same numbers in rows of another length.
        let tensors = acceptance.clone().map(|(mut numbers, scale)| {
            numbers.extend_from_within(..);
            numbers.truncate(64 * dim);
            (numbers, scale)
        });
        tile(&format!("the same numbers, d = {dim}"), dim, &tensors, Mask::new());
    }
    // None of its rows is absorbed as two.
    tile("tile, Whisper-base layer 1, 1408-1471", 64, &rows("whisper.npz", 1, 1408..1472), Mask::new());
    for layer in 0..6 {
        tile(
            &format!("tile, Whisper-base layer {layer}, 640-703"),
            64,
            &rows("whisper.npz", layer, 640..704),
            Mask::new(),
        );
    }
    for layer in 0..6 {
        let operations = count(&mut *backend, 64, 64, &rows("whisper.npz", layer, 0..1500), Mask::new());
        line(&format!("a block of 1500 keys, layer {layer}"), operations, 1500.0 / 64.0);
    }
    println!("{text}");
    insta::assert_snapshot!("vector_kernel", text);
}

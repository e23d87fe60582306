//! `cargo bench`: the workloads and contestants of `attn bench` under criterion, in multiply-accumulates per second, one
//! group a workload, on one thread. `cargo bench --features torch` has libtorch among them, `cargo bench -- whisper` one group.
#![allow(missing_docs, reason = "criterion's macros")]

use std::{hint::black_box, time::Duration};

use attn::{
    BLOCK, Mask, Parameters, Scales,
    backend::{Isa, Options},
    bench::{available, contestants, set_threads, workloads},
};
use attn_npu::layout::{Block, Query};
use criterion::{Criterion, SamplingMode, Throughput, criterion_group};

fn attention(criterion: &mut Criterion) {
    for workload in workloads() {
        let data = workload.data().expect("built-in numbers");
        let mut group = criterion.benchmark_group(&workload.name);
        // The specification takes a good part of a second for a layer of Whisper.
        group.sampling_mode(SamplingMode::Flat).sample_size(20);
        group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
        group.throughput(Throughput::Elements(workload.shape.macs()));
        for mut contestant in contestants(&data, &available(), &Options::default()).expect("backends that this CPU has")
        {
            group.bench_function(&contestant.name, |bencher| {
                bencher.iter(|| contestant.attention.compute().expect("built-in numbers"));
            });
        }
        group.finish();
    }
}

/// The instructions that the backends multiply with.
fn peak(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("peak");
    group.sample_size(20).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        let macs = attn_cpu::peak(isa).expect("available");
        group.throughput(Throughput::Elements(macs));
        group.bench_function(isa.name(), |bencher| bencher.iter(|| attn_cpu::peak(isa)));
    }
    group.finish();
}

/// What the host does for a tile of the NPU, in bytes: queries, keys and values into its objects, and the copy alone.
fn pack(criterion: &mut Criterion) {
    const DIM: usize = 64;
    let scales = Scales { query: 0.01, key: 0.01, value: 1.0, out: 1.0 };
    let parameters = Parameters::new(DIM, scales).expect("in range");
    let tensor: Vec<i8> = (0..BLOCK * DIM).map(|x| x as i8).collect();
    let (mut query, mut block) = (Query::default(), Block::default());
    let mut group = criterion.benchmark_group("pack-64x64x64");
    group.throughput(Throughput::Bytes(3 * tensor.len() as u64));
    group.bench_function("objects", |bencher| {
        bencher.iter(|| {
            query.pack(&parameters, &Mask::new(), 0, BLOCK, &tensor);
            block.pack(DIM, &tensor, &tensor);
        });
    });
    let mut copies = [vec![0; tensor.len()], vec![0; tensor.len()], vec![0; tensor.len()]];
    group.bench_function("copy", |bencher| {
        bencher.iter(|| {
            for copy in &mut copies {
                black_box(copy).copy_from_slice(black_box(&tensor));
            }
        });
    });
    group.finish();
}

criterion_group!(benches, attention, peak, pack);

fn main() {
    set_threads(1).expect("the first threads of the process");
    benches();
    Criterion::default().configure_from_args().final_summary();
}

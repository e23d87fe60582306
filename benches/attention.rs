//! `cargo bench`: the workloads and contestants of `attn bench` under criterion, in multiply-accumulates per second, one
//! group a workload, on one thread. `cargo bench --features torch` has libtorch among them, `cargo bench -- whisper` one group.
#![allow(missing_docs, reason = "criterion's macros")]

use std::{env, hint::black_box, path::PathBuf, time::Duration};

use attn::{
    BLOCK, Mask, Parameters, Scales,
    backend::{Isa, Options},
    bench::{available, contestants, set_threads, workloads},
};
use attn_npu::{
    layout::{Line, pack_block, pack_query},
    runtime::{self, Session, Times},
};
use criterion::{Criterion, SamplingMode, Throughput, criterion_group};

fn attention(criterion: &mut Criterion) {
    for workload in workloads() {
        let data = workload.data().expect("built-in numbers");
        let mut group = criterion.benchmark_group(&workload.name);
        // The specification takes a good part of a second for a layer of Whisper.
        group.sampling_mode(SamplingMode::Flat).sample_size(20);
        group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
        group.throughput(Throughput::Elements(workload.shape.macs()));
        for mut contestant in
            contestants(&data, &available(), &Options::default()).expect("backends that this CPU has").0
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

/// What the host does for a tile of the NPU, in bytes: queries, keys and values into a tile object, and the copy alone.
fn pack(criterion: &mut Criterion) {
    const DIM: usize = 64;
    let scales = Scales { query: 0.01, key: 0.01, value: 1.0, out: 1.0 };
    let parameters = Parameters::new(DIM, scales).expect("in range");
    let tensor: Vec<i8> = (0..BLOCK * DIM).map(|x| x as i8).collect();
    let mut object = vec![Line::ZEROS; 1 + 3 * BLOCK];
    let mut group = criterion.benchmark_group("pack-64x64x64");
    group.throughput(Throughput::Bytes(3 * tensor.len() as u64));
    group.bench_function("objects", |bencher| {
        bencher.iter(|| {
            let behind = pack_query(&mut object, DIM, &parameters, &Mask::new(), 0, BLOCK, &tensor);
            pack_block(&mut object[behind..], DIM, DIM, &tensor, &tensor);
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

/// What an NPU computes in one dispatch, beside everybody else: the workload, and the design that `attn npu build` is asked for.
const DISPATCHES: [(&str, &str); 3] = [
    ("tile-64x64x64", "tile-core"),
    ("tiles64-64x64x64", "npu1-4x4-d64-tiles4"),
    ("whisper-8x1500x64", "whisper-base"),
];

/// The NPU of this machine against its CPU. It runs the xclbins of the folder `ATTN_NPU`, or of `npu`. Where there is none that is said;
/// of the emulated driver there is what the host does for a dispatch, and nothing of a device.
fn npu(criterion: &mut Criterion) {
    let folder = env::var_os("ATTN_NPU").map_or_else(|| PathBuf::from("npu"), PathBuf::from);
    for (name, design) in DISPATCHES {
        // One after the other: they would share the columns of the array.
        let options = runtime::Options::new(folder.join(format!("attn-{design}.xclbin")));
        let mut session = match Session::open(&options) {
            Ok(session) => session,
            Err(error) => {
                println!("\nNO NPU: `npu/{name}` was not measured: {error}\n");
                continue;
            }
        };
        let workload = workloads().into_iter().find(|workload| workload.name == name).expect("a workload");
        let data = workload.data().expect("built-in numbers");
        let masks = data.masks();
        let mut out = vec![0; workload.shape.heads * workload.shape.queries * workload.shape.dim];
        let identity = session.identity().clone();
        let mut compute = |session: &mut Session| {
            session.attend(data.heads(&masks), &mut out, &|_| ()).unwrap_or_else(|error| panic!("{error}"));
        };
        if identity.is_emulated() {
            (0..100).for_each(|_| compute(&mut session));
            let Times { dispatches, pack, submit, wait, unpack, .. } = session.take_times();
            let each = |time: Duration| time.div_f64(dispatches as f64);
            println!(
                "host overhead of {design} ({identity}; nothing of a device): packed in {:.1?}, submitted in {:.1?}, waited for in \
                 {:.1?}, unpacked in {:.1?}",
                each(pack),
                each(submit),
                each(wait),
                each(unpack)
            );
            continue;
        }
        let mut group = criterion.benchmark_group(format!("npu/{name}"));
        group.sampling_mode(SamplingMode::Flat).sample_size(20);
        group.throughput(Throughput::Elements(workload.shape.macs()));
        group.bench_function("npu, end to end", |bencher| bencher.iter(|| compute(&mut session)));
        println!("{design} ({identity}): {}", session.take_times());
        for mut contestant in
            contestants(&data, &available(), &Options::default()).expect("backends that this CPU has").0
        {
            group.bench_function(&contestant.name, |bencher| {
                bencher.iter(|| contestant.attention.compute().expect("built-in numbers"));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, attention, npu, peak, pack);

fn main() {
    set_threads(1).expect("the first threads of the process");
    benches();
    Criterion::default().configure_from_args().final_summary();
}

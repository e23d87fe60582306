//! Attention for `cargo xtask instructions`, which counts the instructions of [`measured`]: `BACKEND tile|head|queries`.
//!
//! The fourth layer's head of Whisper-base: its frames 640 to 703, all 1500, or the first 32 of them against all. With `stop`
//! behind it, it stops itself before and after, for who steps through it.

use std::{env, fs::File, hint::black_box, io::BufReader, ops::Range, process::ExitCode};

use attn::{
    Heads, Inputs, Mask, Parameters,
    backend::{Backend, BackendKind, Options},
    npz,
    problem::{OutScale, Problem},
};

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/suite/data/whisper.npz");
const HEAD: usize = 3;

/// What is counted.
#[inline(never)]
fn measured(backend: &mut dyn Backend, heads: Heads<'_>, out: &mut [i8]) {
    backend.attend(heads, out, &|_| ()).expect("a valid head");
}

/// Returns when somebody continues this process.
fn stop_here() {
    #[cfg(unix)]
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP).expect("a signal");
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (backend, workload, stop) = match &arguments[..] {
        [backend, workload] => (backend, workload.as_str(), false),
        [backend, workload, stop] if stop == "stop" => (backend, workload.as_str(), true),
        _ => {
            eprintln!("usage: instructions BACKEND tile|queries|head [stop]");
            return ExitCode::from(2);
        }
    };
    let mut backend = match backend.parse::<BackendKind>().and_then(|kind| kind.open(&Options::default())) {
        Ok(backend) => backend,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    // The calling thread alone.
    rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build_global().expect("one thread");
    let file = npz::read_from(BufReader::new(File::open(FIXTURE).expect("the fixture")), FIXTURE).expect("an archive");
    let problem = Problem::from_file(file).expect("floats");
    let scales = problem.out_scales(OutScale::Value, &|_| ()).expect("in range");
    let parameters: Vec<Parameters> = problem.parameters(&scales).expect("in range");
    let (queries, keys) = match workload {
        "tile" => (640..704, 640..704),
        "queries" => (0..32, 0..problem.keys),
        _ => (0..problem.keys, 0..problem.keys),
    };
    let cut = |tensor: &[i8], rows: &Range<usize>| {
        let head = &tensor[HEAD * problem.keys * problem.dim..];
        head[rows.start * problem.dim..rows.end * problem.dim].to_vec()
    };
    let (query, key) = (cut(&problem.tensors.query, &queries), cut(&problem.tensors.key, &keys));
    let value = cut(&problem.tensors.value, &keys);
    let inputs = Inputs { query: &query, key: &key, value: &value };
    let heads = Heads { parameters: &parameters[HEAD..=HEAD], masks: &[Mask::new()], kv_heads: 1, inputs };
    let mut out = vec![0; query.len()];
    // Memory is made by the first call, which is not counted.
    backend.attend(heads, &mut out, &|_| ()).expect("a valid head");
    let marker = || {
        if stop {
            stop_here();
        }
    };
    marker();
    measured(&mut *backend, heads, &mut out);
    marker();
    black_box(&out);
    ExitCode::SUCCESS
}

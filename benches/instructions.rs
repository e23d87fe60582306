//! Attention for `cargo xtask instructions`, which counts the instructions of [`measured`]: `BACKEND tile|head`.
//!
//! The third layer's head of Whisper-base: its frames 640 to 703, or all 1500.

use std::{env, fs::File, hint::black_box, io::BufReader, process::ExitCode};

use attn::{
    Heads, Inputs, Mask, Parameters,
    backend::{Backend, BackendKind},
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

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [backend, workload] = &arguments[..] else {
        eprintln!("usage: instructions BACKEND tile|head");
        return ExitCode::from(2);
    };
    let mut backend = match backend.parse::<BackendKind>().and_then(BackendKind::open) {
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
    let rows = if workload == "tile" { 640..704 } else { 0..problem.keys };
    let cut = |tensor: &'_ [i8]| {
        let head = &tensor[HEAD * problem.keys * problem.dim..];
        head[rows.start * problem.dim..rows.end * problem.dim].to_vec()
    };
    let (query, key) = (cut(&problem.tensors.query), cut(&problem.tensors.key));
    let value = cut(&problem.tensors.value);
    let inputs = Inputs { query: &query, key: &key, value: &value };
    let heads = Heads { parameters: &parameters[HEAD..=HEAD], masks: &[Mask::new()], kv_heads: 1, inputs };
    let mut out = vec![0; query.len()];
    // Memory is made by the first call, which is not counted.
    backend.attend(heads, &mut out, &|_| ()).expect("a valid head");
    measured(&mut *backend, heads, &mut out);
    black_box(&out);
    ExitCode::SUCCESS
}

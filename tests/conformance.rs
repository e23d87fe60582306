//! The conformance suite: written once, instantiated for every backend. A backend conforms when it gives the bits of the
//! specification on everything.
//!
//! The expected tiles are snapshots (`tests/snapshots/`): the bits of each in a binary file, and a readable summary beside
//! it. All backends are compared with the same files, and so is the numpy model (`tests/numpy/check.py`).

use std::{
    cell::RefCell,
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use attn::{
    AttentionError, BLOCK, FloatError, FloatHeads, Heads, Inputs, Mask, Parameters, QuantiseError, Scales, Tensor,
    attend,
    backend::{Backend, BackendError, BackendKind, Isa, Limits, Options, UnsupportedMask},
    npz::{self, Qkv, Values},
    quantise, scratch_len,
};
use proptest::{
    collection::vec,
    prelude::*,
    sample::select,
    strategy::ValueTree,
    test_runner::{TestCaseError, TestRunner},
};

/// Instantiates the suite.
macro_rules! conformance {
    ($($backend:ident: $kind:expr),+ $(,)?) => {
        $(mod $backend {
            use super::*;

            #[test]
            fn tiles_have_the_expected_bits() {
                super::tiles_have_the_expected_bits($kind);
            }

            #[test]
            fn a_whole_head_has_the_expected_bits() {
                super::a_whole_head_has_the_expected_bits($kind);
            }

            #[test]
            fn equals_the_specification() {
                super::equals_the_specification($kind);
            }

            #[test]
            fn equals_the_specification_at_every_edge() {
                super::equals_the_specification_at_every_edge($kind);
            }

            #[test]
            fn floats_have_the_expected_bits() {
                super::floats_have_the_expected_bits($kind);
            }

            #[test]
            fn floats_equal_the_specification() {
                super::floats_equal_the_specification($kind);
            }

            #[test]
            fn refuses_floats_that_are_not_finite() {
                super::refuses_floats_that_are_not_finite($kind);
            }

            #[test]
            fn refuses_what_the_specification_refuses() {
                super::refuses_what_the_specification_refuses($kind);
            }
        })+

        /// A backend without the suite is a failure.
        #[test]
        fn every_backend_is_instantiated() {
            assert_eq!([$($kind),+], *BackendKind::ALL);
            $(assert_eq!(stringify!($backend), $kind.name().replace('-', "_"));)+
            println!("conformance suite instantiated for: {}", [$($kind.name()),+].join(", "));
        }
    };
}

conformance! {
    scalar: BackendKind::Scalar,
    avx512_vnni: BackendKind::Cpu(Isa::Avx512Vnni),
    avx512_bw: BackendKind::Cpu(Isa::Avx512Bw),
    avx_vnni: BackendKind::Cpu(Isa::AvxVnni),
    avx2: BackendKind::Cpu(Isa::Avx2),
    kernel: BackendKind::Kernel,
    aie2_model: BackendKind::Aie2Model,
    npu: BackendKind::Npu,
    auto: BackendKind::Auto,
}

/// The backend, if this machine has it; `cargo xtask unit` lists those that it does not have as skipped. An NPU runs the xclbin
/// that `ATTN_NPU_XCLBIN` names.
fn open(kind: BackendKind) -> Option<Box<dyn Backend>> {
    let xclbin = std::env::var_os("ATTN_NPU_XCLBIN").map(PathBuf::from).filter(|_| kind == BackendKind::Npu);
    match kind.open(&Options { xclbin, ..Options::default() }) {
        Err(error @ (BackendError::Unavailable(_) | BackendError::NoXclbin)) => {
            println!("SKIPPED {error}");
            None
        }
        opened => {
            let backend = opened.unwrap_or_else(|error| panic!("{error}"));
            let limits = match kind {
                BackendKind::Kernel | BackendKind::Aie2Model => Limits { boolean_masks: false, ..Limits::NONE },
                // Those of the xclbin.
                BackendKind::Npu => Limits { boolean_masks: false, floats: false, ..backend.limits() },
                _ => Limits::NONE,
            };
            assert_eq!(backend.limits(), limits, "{}", backend.name());
            Some(backend)
        }
    }
}

/// Whether a backend takes whole heads of Whisper; says so if not.
fn takes(backend: &dyn Backend, keys: usize) -> bool {
    let Err(error) = backend.limits().check(64, keys, &[]) else { return true };
    println!("SKIPPED {}: {error}", backend.name());
    false
}

/// One head, quantised, with the output scale of the values.
struct Head {
    parameters: Parameters,
    tensors: Qkv<Vec<i8>>,
}

impl Head {
    /// Rows `from..to` of head `head` of a fixture, quantised by `quantise`.
    fn of_fixture(
        file: &str,
        head: usize,
        rows: std::ops::Range<usize>,
        quantise: impl Fn(&[f32]) -> (Vec<i8>, f32),
    ) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/suite/data").join(file);
        let inputs = npz::read(&path).expect("a committed fixture");
        let Values::Float(floats) = &inputs.values else { panic!("{file} holds floats") };
        let cut = |tensor: &[f32]| {
            let head = &tensor[head * inputs.keys * inputs.dim..];
            quantise(&head[rows.start * inputs.dim..rows.end * inputs.dim])
        };
        let [(query, q), (key, k), (value, v)] = [&floats.query, &floats.key, &floats.value].map(|t| cut(t));
        let scales = Scales { query: q, key: k, value: v, out: v };
        let parameters = Parameters::new(inputs.dim, scales).expect("scales of real data");
        Self { parameters, tensors: Qkv { query, key, value } }
    }

    fn run(&self, backend: &mut dyn Backend) -> Vec<i8> {
        let Qkv { query, key, value } = &self.tensors;
        let mut out = vec![77; query.len()];
        let heads = Heads {
            parameters: &[self.parameters],
            masks: &[Mask::new()],
            kv_heads: 1,
            inputs: Inputs { query, key, value },
        };
        backend.attend(heads, &mut out, &|_| ()).expect("a valid head");
        out
    }
}

fn nearest(values: &[f32]) -> (Vec<i8>, f32) {
    let mut quantised = vec![0; values.len()];
    let scale = quantise(values, &mut quantised).expect("finite");
    (quantised, scale)
}

/// As the users of the 64×64 tile quantise: towards zero.
fn truncated(values: &[f32]) -> (Vec<i8>, f32) {
    let largest = values.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    (values.iter().map(|x| (x * 127.0 / largest) as i8).collect(), largest / 127.0)
}

/// The bits, and what a reader can see of them.
fn assert_tile(name: &str, out: &[i8]) {
    insta::assert_binary_snapshot!(&format!("{name}.bin"), out.iter().map(|&x| x as u8).collect());
    insta::assert_snapshot!(format!("{name}_summary"), summary(out));
}

fn fnv1a(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, |hash, x| (hash ^ u64::from(x)).wrapping_mul(0x0100_0000_01b3))
}

fn summary(out: &[i8]) -> String {
    let floats = || out.iter().map(|&x| f64::from(x));
    let mean = floats().sum::<f64>() / out.len() as f64;
    let deviation = (floats().map(|x| (x - mean).powi(2)).sum::<f64>() / out.len() as f64).sqrt();
    let checksum = fnv1a(out.iter().map(|&x| x as u8));
    let mut text = format!(
        "shape: {} x 64\nrange: {} to {}\nmean: {mean:.4}\nstandard deviation: {deviation:.4}\nfnv1a: {checksum:016x}\n\
         first 8 x 8:\n",
        out.len() / 64,
        out.iter().min().expect("not empty"),
        out.iter().max().expect("not empty"),
    );
    for row in out.chunks_exact(64).take(8) {
        for x in &row[..8] {
            write!(text, "{x:5}").expect("a string");
        }
        text.push('\n');
    }
    text
}

fn tiles_have_the_expected_bits(kind: BackendKind) {
    let Some(mut backend) = open(kind) else { return };
    if !takes(&*backend, 64) {
        return;
    }
    let head = Head::of_fixture("acceptance.npz", 0, 0..64, truncated);
    assert_tile("acceptance", &head.run(&mut *backend));
    for layer in 0..6 {
        let head = Head::of_fixture("whisper.npz", layer, 640..704, nearest);
        assert_tile(&format!("whisper_layer_{layer}"), &head.run(&mut *backend));
    }
}

fn a_whole_head_has_the_expected_bits(kind: BackendKind) {
    let Some(mut backend) = open(kind) else { return };
    if !takes(&*backend, 1500) {
        return;
    }
    let head = Head::of_fixture("whisper.npz", 3, 0..1500, nearest);
    assert_tile("whisper_head_layer_3", &head.run(&mut *backend));
}

/// Floats in and out. The bits would be files four times the size: a hash of them, little-endian.
fn floats_have_the_expected_bits(kind: BackendKind) {
    let Some(mut backend) = open(kind) else { return };
    if !backend.limits().floats {
        println!("SKIPPED {}: no floats", backend.name());
        return;
    }
    for (name, file, head) in [("acceptance", "acceptance.npz", 0), ("whisper_head_layer_3", "whisper.npz", 3)] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/suite/data").join(file);
        let npz::Inputs { keys, dim, values, .. } = npz::read(&path).expect("a committed fixture");
        let Values::Float(tensors) = &values else { panic!("{file} holds floats") };
        let [query, key, value] =
            [&tensors.query, &tensors.key, &tensors.value].map(|tensor| &tensor[head * keys * dim..][..keys * dim]);
        let mut out = vec![77.0; query.len()];
        let heads = FloatHeads { dim, masks: &[Mask::new()], kv_heads: 1, query, key, value };
        backend.attend_f32(heads, &mut out, &|_| ()).expect("a valid head");
        let mut text = format!(
            "shape: {keys} x {dim}\nrange: {:?} to {:?}\nfnv1a: {:016x}\nfirst 4 x 4:\n",
            out.iter().copied().fold(f32::MAX, f32::min),
            out.iter().copied().fold(f32::MIN, f32::max),
            fnv1a(out.iter().flat_map(|x| x.to_le_bytes())),
        );
        for row in out.chunks_exact(dim).take(4) {
            for x in &row[..4] {
                write!(text, "{x:15?}").expect("a string");
            }
            text.push('\n');
        }
        insta::assert_snapshot!(format!("{name}_floats"), text);
    }
}

/// Heads at random, with all that varies between calls.
#[derive(Clone, Debug)]
struct Random {
    dim: usize,
    kv_heads: usize,
    scales: Vec<Scales>,
    tensors: [Vec<i8>; 3],
    queries: usize,
    keys: usize,
    valid_keys: Option<usize>,
    causal: Option<usize>,
    /// `[queries or 1, keys or 1]`, and the length of its rows.
    allowed: Option<(Vec<bool>, usize)>,
}

impl Random {
    /// The mask of all heads.
    fn mask(&self) -> Mask<'_> {
        let mut mask = Mask::new();
        if let Some(keys) = self.valid_keys {
            mask = mask.valid_keys(keys);
        }
        if let Some(offset) = self.causal {
            mask = mask.causal(offset);
        }
        if let Some((allowed, row)) = &self.allowed {
            mask = mask.allowed(allowed, *row);
        }
        mask
    }

    /// What a backend of these limits says.
    fn refusal(&self, limits: Limits) -> Option<BackendError> {
        let room = |what, got, most| (got > most).then_some(BackendError::Room { what, got, most });
        room("dimension", self.dim, limits.dim).or_else(|| room("keys", self.keys, limits.keys)).or_else(|| {
            let refuses = !limits.boolean_masks && self.allowed.is_some();
            refuses.then_some(BackendError::Mask(UnsupportedMask { head: 0 }))
        })
    }
}

fn int8(len: usize) -> impl Strategy<Value = Vec<i8>> {
    prop_oneof![
        4 => vec(any::<i8>(), len),
        2 => vec(-20..20_i8, len),
        1 => vec(select(vec![i8::MIN, i8::MAX]), len),
        1 => Just(vec![i8::MIN; len]),
    ]
}

fn scales(dim: usize) -> impl Strategy<Value = Scales> {
    let largest = 32.0 / (dim as f32).sqrt() * 0.999;
    let score =
        prop_oneof![1 => Just(largest), 1 => Just(1e-20), 6 => (-18.0..0.0_f32).prop_map(move |x| largest * x.exp2())];
    let gain = prop_oneof![1 => Just(1.0 / 65_536.0), 1 => Just(65_536.0), 6 => (-3.0..9.0_f32).prop_map(f32::exp2)];
    (score, gain).prop_map(|(query, value)| Scales { query, key: 1.0, value, out: 1.0 })
}

fn random() -> impl Strategy<Value = Random> {
    let queries = prop_oneof![9 => 1..20_usize, 1 => 60..200_usize];
    let shape = (select(vec![8, 9, 24, 64, 80, 256]), 1..3_usize, 1..3_usize, queries, 1..4 * BLOCK);
    shape.prop_flat_map(|(dim, group, kv_heads, queries, keys)| {
        let heads = group * kv_heads;
        (
            vec(scales(dim), heads),
            [int8(heads * queries * dim), int8(kv_heads * keys * dim), int8(kv_heads * keys * dim)],
            proptest::option::of(0..=keys),
            proptest::option::of(0..keys + 3),
            proptest::option::of(
                select(vec![[queries, keys], [queries, keys], [1, keys], [queries, 1]])
                    .prop_flat_map(|[rows, row]| (vec(any::<bool>(), rows * row), Just(row))),
            ),
        )
            .prop_map(move |(scales, tensors, valid_keys, causal, allowed)| Random {
                dim,
                kv_heads,
                scales,
                tensors,
                queries,
                keys,
                valid_keys,
                causal,
                allowed,
            })
    })
}

/// Random shapes, scales and masks, at the extremes too: the bits of the specification, computed head by head.
fn equals_the_specification(kind: BackendKind) {
    let Some(backend) = open(kind) else { return };
    let backend = RefCell::new(backend);
    let config = ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() };
    let result = TestRunner::new(config).run(&random(), |case| equals(&mut **backend.borrow_mut(), &case));
    if let Err(error) = result {
        panic!("{}: {error}", kind.name());
    }
}

/// Every combination of what kernels treat apart: dimensions that fill their registers and that do not, one query and more
/// than a piece of work, one key, a block of them and one more, and prefix masks that hide all of a row and all of a block.
fn equals_the_specification_at_every_edge(kind: BackendKind) {
    let Some(mut backend) = open(kind) else { return };
    let mut runner = TestRunner::deterministic();
    for (dim, queries, keys) in [8, 9, 24, 64, 80, 256].into_iter().flat_map(|dim| {
        [1, 3, 65].into_iter().flat_map(move |queries| [1, 63, 64, 65, 200].map(|keys| (dim, queries, keys)))
    }) {
        let (heads, kv_heads) = (4, 2);
        let tensors = [int8(heads * queries * dim), int8(kv_heads * keys * dim), int8(kv_heads * keys * dim)];
        let strategy = (vec(scales(dim), heads), tensors);
        let (scales, tensors) = strategy.new_tree(&mut runner).expect("a value").current();
        let mut case =
            Random { dim, kv_heads, scales, tensors, queries, keys, valid_keys: None, causal: None, allowed: None };
        let valid_keys = [None, Some(0), Some(1), Some(keys / 2), Some(keys)];
        let causal = [None, Some(0), Some(62.min(keys)), Some(keys + 1), Some(usize::MAX)];
        for (valid_keys, causal) in valid_keys.into_iter().flat_map(|valid| causal.map(|causal| (valid, causal))) {
            (case.valid_keys, case.causal) = (valid_keys, causal);
            if let Err(error) = equals(&mut *backend, &case) {
                panic!("{}: {queries} x {keys} x {dim}, {valid_keys:?}, {causal:?}: {error}", kind.name());
            }
        }
    }
}

/// A backend gives the bits of the specification, or refuses the mask if it is one that does.
fn equals(backend: &mut dyn Backend, case: &Random) -> Result<(), TestCaseError> {
    let mask = case.mask();
    let parameters: Vec<_> =
        case.scales.iter().map(|&scales| Parameters::new(case.dim, scales).expect("in range")).collect();
    let masks = vec![mask; parameters.len()];
    let [query, key, value] = &case.tensors;
    let inputs = Inputs { query, key, value };
    let mut out = vec![77; query.len()];
    let heads = Heads { parameters: &parameters, masks: &masks, kv_heads: case.kv_heads, inputs };
    let done = AtomicUsize::new(0);
    let progress = |queries| _ = done.fetch_add(queries, Ordering::Relaxed);
    let result = backend.attend(heads, &mut out, &progress);
    let limits = backend.limits();
    let check = limits.check(case.dim, case.keys, &masks);
    if let Some(error) = case.refusal(limits) {
        prop_assert_eq!(check, Err(error.clone()));
        prop_assert_eq!(result, Err(error));
        prop_assert!(out.iter().all(|&x| x == 77), "the output was touched");
        return Ok(());
    }
    prop_assert_eq!(check, Ok(()));
    result.map_err(|error| TestCaseError::fail(error.to_string()))?;
    prop_assert_eq!(done.into_inner(), parameters.len() * case.queries, "progress");

    let (query_len, key_len) = (case.queries * case.dim, case.keys * case.dim);
    let mut scratch = vec![0; scratch_len(case.dim)];
    let mut expected = vec![0; query_len];
    for (h, out) in out.chunks_exact(query_len).enumerate() {
        let kv = h * case.kv_heads / parameters.len();
        let inputs = Inputs {
            query: &query[h * query_len..][..query_len],
            key: &key[kv * key_len..][..key_len],
            value: &value[kv * key_len..][..key_len],
        };
        attend(&parameters[h], inputs, &mask, &mut scratch, &mut expected).expect("a valid head");
        prop_assert_eq!(out, &expected, "head {}", h);
    }
    Ok(())
}

/// Floats of any magnitude: quantised, attended and dequantised head by head, with the specification's own functions.
fn floats_equal_the_specification(kind: BackendKind) {
    let Some(backend) = open(kind) else { return };
    let backend = RefCell::new(backend);
    let config = ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() };
    // What an integer is worth: scores from flat to too steep, values of any magnitude.
    let worth = (-30.0..-2.0_f32, prop_oneof![4 => -9.0..9.0_f32, 1 => -149.0..120.9_f32]);
    let result = TestRunner::new(config).run(&(random(), worth), |(mut case, (score, value))| {
        // Every other head is causal, below.
        case.causal = None;
        let mask = case.mask();
        let floats = |tensor: &[i8], worth: f32| tensor.iter().map(|&x| f32::from(x) * worth).collect::<Vec<_>>();
        let [query, key, value] = [
            floats(&case.tensors[0], score.exp2()),
            floats(&case.tensors[1], 1.0),
            floats(&case.tensors[2], value.exp2()),
        ];
        let heads = case.scales.len();
        let masks: Vec<_> = (0..heads).map(|h| if h % 2 == 0 { mask } else { mask.causal(h) }).collect();
        let float_heads = FloatHeads {
            dim: case.dim,
            masks: &masks,
            kv_heads: case.kv_heads,
            query: &query,
            key: &key,
            value: &value,
        };
        let mut out = vec![77.0; query.len()];
        let result = backend.borrow_mut().attend_f32(float_heads, &mut out, &|_| ());
        let limits = backend.borrow().limits();
        let refusal = if limits.floats { case.refusal(limits) } else { Some(BackendError::NoFloats) };
        if let Some(error) = refusal {
            prop_assert_eq!(result, Err(error));
            prop_assert!(is_untouched(&out), "the output was touched");
            return Ok(());
        }

        let (query_len, key_len) = (case.queries * case.dim, case.keys * case.dim);
        let [mut q, mut k, mut v] = [vec![0; query_len], vec![0; key_len], vec![0; key_len]];
        let mut expected = vec![78.0_f32; query.len()];
        let specified = expected.chunks_exact_mut(query_len).enumerate().try_for_each(|(h, out)| {
            let kv = h * case.kv_heads / heads;
            let value = quantise(&value[kv * key_len..][..key_len], &mut v).expect("finite");
            let scales = Scales {
                query: quantise(&query[h * query_len..][..query_len], &mut q).expect("finite"),
                key: quantise(&key[kv * key_len..][..key_len], &mut k).expect("finite"),
                value,
                out: value,
            };
            let parameters = Parameters::new(case.dim, scales)?;
            let inputs = Inputs { query: &q, key: &k, value: &v };
            attend(&parameters, inputs, &masks[h], &mut vec![0; scratch_len(case.dim)], out).expect("a valid head");
            Ok(())
        });
        match specified {
            Ok(()) => {
                result.map_err(|error| TestCaseError::fail(error.to_string()))?;
                prop_assert!(out.iter().all(|x| x.is_finite()));
                let bits = |floats: &[f32]| floats.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                prop_assert_eq!(bits(&out), bits(&expected));
            }
            Err(error) => {
                prop_assert_eq!(result, Err(BackendError::Float(FloatError::Parameters(error))));
                prop_assert!(is_untouched(&out), "the output was touched");
            }
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{}: {error}", kind.name());
    }
}

fn is_untouched(out: &[f32]) -> bool {
    out.iter().all(|x| x.to_bits() == 77.0_f32.to_bits())
}

fn refuses_floats_that_are_not_finite(kind: BackendKind) {
    let Some(mut backend) = open(kind) else { return };
    for (place, tensor) in [Tensor::Query, Tensor::Key, Tensor::Value].into_iter().enumerate() {
        for bad in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
            let mut tensors = [vec![1.0; 48], vec![1.0; 32], vec![1.0; 32]];
            tensors[place][27] = bad;
            let [query, key, value] = &tensors;
            let heads = FloatHeads { dim: 8, masks: &[Mask::new(); 2], kv_heads: 2, query, key, value };
            let mut out = [77.0; 48];
            let got = backend.attend_f32(heads, &mut out, &|_| ()).expect_err("not finite");
            let expected = FloatError::Quantise { tensor, error: QuantiseError::NotFinite { index: 27, got: bad } };
            let expected = if backend.limits().floats { expected.into() } else { BackendError::NoFloats };
            assert_eq!(got.to_string(), expected.to_string());
            assert!(is_untouched(&out));
        }
    }
    let floats = [1.0; 48];
    let mut out = [77.0; 48];
    for (dim, kv_heads, key, out_len) in [(7, 2, 32, 48), (8, 3, 48, 48), (8, 2, 33, 48), (8, 2, 0, 48), (8, 2, 32, 40)]
    {
        let (query, key) = (&floats[..], &floats[..key]);
        let heads = FloatHeads { dim, masks: &[Mask::new(); 2], kv_heads, query, key, value: key };
        let error = backend.attend_f32(heads, &mut out[..out_len], &|_| ()).expect_err("shapes");
        assert!(error.to_string().contains("got"), "{error}");
    }
    assert!(is_untouched(&out));
}

/// The same errors, and nothing written.
fn refuses_what_the_specification_refuses(kind: BackendKind) {
    let Some(mut backend) = open(kind) else { return };
    let scales = Scales { query: 0.1, key: 0.1, value: 1.0, out: 1.0 };
    let parameters = [Parameters::new(8, scales).expect("in range"); 2];
    let zeros = [0; 64];
    let allowed = [true; 5];
    for (kv_heads, [query, key, value, out], mask, expected) in [
        (0, [32, 32, 32, 32], Mask::new(), AttentionError::Groups { heads: 2, kv_heads: 0 }),
        (3, [32, 48, 48, 32], Mask::new(), AttentionError::Groups { heads: 2, kv_heads: 3 }),
        (1, [32, 24, 16, 32], Mask::new(), AttentionError::Length { tensor: Tensor::Value, got: 16, expected: 24 }),
        (2, [32, 0, 0, 32], Mask::new(), AttentionError::Empty { tensor: Tensor::Key }),
        (2, [32, 32, 32, 16], Mask::new(), AttentionError::Length { tensor: Tensor::Out, got: 8, expected: 16 }),
        (
            2,
            [32, 32, 32, 32],
            Mask::new().valid_keys(3),
            AttentionError::Mask(attn::MaskError::ValidKeys { got: 3, keys: 2 }),
        ),
        (
            2,
            [32, 32, 32, 32],
            Mask::new().allowed(&allowed, 2),
            AttentionError::Mask(attn::MaskError::Allowed { got: (5, 2), expected: (2, 2) }),
        ),
    ] {
        let inputs = Inputs { query: &zeros[..query], key: &zeros[..key], value: &zeros[..value] };
        let mut out = vec![77; out];
        let heads = Heads { parameters: &parameters, masks: &[mask; 2], kv_heads, inputs };
        let got = backend.attend(heads, &mut out, &|_| ());
        assert_eq!(got, Err(BackendError::Attention(expected)));
        assert!(out.iter().all(|&x| x == 77), "{expected}: the output was touched");
    }
}

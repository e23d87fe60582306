//! How near outputs in floats are to float64 attention, on whole Whisper-base heads. Every backend gives the same bits, as the
//! conformance suite says; here is the fastest one.

use std::path::Path;

use attn::{
    FloatHeads, Heads, Inputs, Mask, Parameters, Scales,
    backend::{Backend, BackendKind, Options},
    npz::{self, Values},
    quantise,
};
use attn_ref::{Metrics, Tolerance, attention_head, tolerance};
use ndarray::Array2;

/// Query, key and value.
type Tensors<T> = [Vec<T>; 3];

/// Float64 attention.
fn truth(tensors: Tensors<f64>, dim: usize) -> Vec<f64> {
    let [query, key, value] =
        tensors.map(|tensor| Array2::from_shape_vec([tensor.len() / dim, dim], tensor).expect("whole rows"));
    let scale = 1.0 / (dim as f64).sqrt();
    let truth = attention_head(query.view(), key.view(), value.view(), scale, &Mask::new()).expect("finite");
    truth.into_raw_vec_and_offset().0
}

/// The figures in steps; the output must be within the limits.
fn judge(name: &str, got: impl Iterator<Item = f64>, truth: &[f64], step: f64, limits: Option<&Tolerance>) -> Metrics {
    let metrics = Metrics::of(got.map(|x| x / step), truth.iter().map(|x| x / step)).expect("of one length");
    println!("{name}: MAE {:.4}, maximum {:.3}, correlation {:?}", metrics.mae, metrics.max_error, metrics.correlation);
    let violations = limits.map_or(vec![], |limits| limits.check(&metrics, None));
    assert!(violations.is_empty(), "{name}: {violations:?}");
    metrics
}

fn head(backend: &mut dyn Backend, dim: usize, floats: [&[f32]; 3]) {
    let quantised = floats.map(|tensor| {
        let mut integers = vec![0; tensor.len()];
        let scale = quantise(tensor, &mut integers).expect("finite");
        (integers, scale)
    });
    let on_integers = truth(
        quantised
            .each_ref()
            .map(|(integers, scale)| integers.iter().map(|&x| f64::from(x) * f64::from(*scale)).collect()),
        dim,
    );
    let on_floats = truth(floats.map(|tensor| tensor.iter().map(|&x| f64::from(x)).collect()), dim);
    // The output scale that int8 does best with.
    let step = on_integers.iter().fold(0.0_f64, |largest, x| largest.max(x.abs())) / 127.0;

    let mask = [Mask::new()];
    let [query, key, value] = floats;
    let mut out = vec![0.0; query.len()];
    let heads = FloatHeads { dim, masks: &mask, kv_heads: 1, query, key, value };
    backend.attend_f32(heads, &mut out, &|_| ()).expect("a valid head");
    let out = || out.iter().map(|&x| f64::from(x));

    let [(query, q), (key, k), (value, v)] = &quantised;
    let scales = Scales { query: *q, key: *k, value: *v, out: step as f32 };
    let parameters = [Parameters::new(dim, scales).expect("in range")];
    let mut rounded = vec![0; query.len()];
    let heads = Heads { parameters: &parameters, masks: &mask, kv_heads: 1, inputs: Inputs { query, key, value } };
    backend.attend(heads, &mut rounded, &|_| ()).expect("a valid head");
    let rounded = || rounded.iter().map(|&x| f64::from(x) * f64::from(step as f32));

    for (truth, on, limits) in [
        (&on_integers, "the same integers", tolerance::FLOATS),
        (&on_floats, "the floats", tolerance::FLOATS_OF_FLOATS),
    ] {
        let floats = judge(&format!("floats, truth on {on}"), out(), truth, step, Some(&limits));
        let int8 = judge(&format!("  int8, truth on {on}"), rounded(), truth, step, None);
        assert!(floats.mae < int8.mae, "{on}: {} is not better than {}", floats.mae, int8.mae);
    }
}

#[test]
fn whole_whisper_heads_lose_less_in_floats_than_in_int8() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/suite/data/whisper.npz");
    let npz::Inputs { heads, keys, dim, values, .. } = npz::read(&path).expect("a committed fixture");
    let Values::Float(tensors) = &values else { panic!("the fixture holds floats") };
    let mut backend = BackendKind::Auto.open(&Options::default()).expect("a backend");
    for h in 0..heads {
        let [query, key, value] =
            [&tensors.query, &tensors.key, &tensors.value].map(|tensor| &tensor[h * keys * dim..][..keys * dim]);
        head(&mut *backend, dim, [query, key, value]);
    }
}

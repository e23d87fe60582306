//! Whatever the bytes say: every instruction set and every kernel gives what the specification gives, bits or errors, and nothing
//! panics.
#![no_main]

use arbitrary::{Arbitrary, Result, Unstructured};
use attn_cpu::{Attention, Isa};
use attn_fixed::{
    FloatError, FloatHeads, Heads, Inputs, Mask, Output, Parameters, Scales, attend, quantise_heads, scratch_len,
};
use attn_fuzz::Valid;
use attn_npu::{Kernel, NpuError};
use libfuzzer_sys::fuzz_target;

/// Heads that may be wrong in any way.
#[derive(Debug)]
struct Case {
    dim: usize,
    scales: Vec<Scales>,
    kv_heads: usize,
    query: Vec<i8>,
    key: Vec<i8>,
    value: Vec<i8>,
    out_len: usize,
    scratch_len: usize,
    /// Of each head.
    valid_keys: Vec<Option<usize>>,
    causal: Vec<Option<usize>>,
    allowed: Option<(Vec<bool>, usize)>,
    /// What an integer is worth as a float.
    worth: [f32; 3],
}

impl<'a> Arbitrary<'a> for Case {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        // Behind the last byte there are zeros, with which every ratio is met: what is usual is asked for.
        let dim = if u.ratio(7, 8)? { *u.choose(&[8, 9, 16, 24, 64, 80, 256])? } else { u.int_in_range(0..=300)? };
        let (heads, kv_heads) = (u.int_in_range(0..=4_usize)?, u.int_in_range(0..=2_usize)?);
        let (queries, keys) = (u.int_in_range(0..=40_usize)?, u.int_in_range(0..=150_usize)?);
        // More than the kernels take at once.
        let queries = if u.ratio(15, 16)? { queries } else { 60 + queries };
        // Lengths are mostly right.
        let wrong = |u: &mut Unstructured<'a>| if u.ratio(15, 16)? { Ok(0) } else { u.int_in_range(0..=9) };
        let tensor = |u: &mut Unstructured<'a>, len: usize| -> Result<Vec<i8>> {
            let len = len + wrong(u)?;
            // A few bytes go a long way: they are repeated with a change.
            let seed: Vec<i8> = (0..u.int_in_range(1..=40)?).map(|_| u.arbitrary()).collect::<Result<_>>()?;
            let step: i8 = u.arbitrary()?;
            Ok((0..len).map(|i| seed[i % seed.len()].wrapping_add(step.wrapping_mul((i / seed.len()) as i8))).collect())
        };
        let scale = |u: &mut Unstructured<'a>| -> Result<f32> {
            Ok(if u.ratio(15, 16)? { f32::exp2(f32::from(u.int_in_range(0..=31_u8)?) * -0.93) } else { u.arbitrary()? })
        };
        let scales = |u: &mut Unstructured<'a>| -> Result<Scales> {
            // From the largest that is accepted on, where differences of scores do not fit.
            let largest = 32.0 / (dim as f32).sqrt() * 0.999;
            let query = if u.ratio(15, 16)? {
                largest * f32::exp2(f32::from(u.int_in_range(0..=31_u8)?) * -0.93)
            } else {
                u.arbitrary()?
            };
            Ok(Scales { query, key: 1.0, value: scale(u)?, out: scale(u)? })
        };
        let ends = |u: &mut Unstructured<'a>| -> Result<Vec<Option<usize>>> {
            let same = u.ratio(1, 2)?;
            let mut end = || u.arbitrary::<bool>()?.then(|| u.int_in_range(0..=keys + 1)).transpose();
            let first = end()?;
            (0..heads).map(|_| if same { Ok(first) } else { end() }).collect()
        };
        Ok(Self {
            dim,
            scales: (0..heads).map(|_| scales(u)).collect::<Result<_>>()?,
            kv_heads,
            query: tensor(u, heads * queries * dim)?,
            key: tensor(u, kv_heads * keys * dim)?,
            value: tensor(u, kv_heads * keys * dim)?,
            out_len: heads * queries * dim + wrong(u)?,
            scratch_len: u.int_in_range(0..=600)?,
            valid_keys: ends(u)?,
            causal: ends(u)?,
            allowed: if u.ratio(1, 3)? {
                let seed: u64 = u.arbitrary()?;
                let rows = *u.choose(&[queries, 1])?;
                let row = *u.choose(&[keys, 1, 7])?;
                Some(((0..rows * row).map(|i| seed >> (i % 61) & 1 == 1).collect(), row))
            } else {
                None
            },
            worth: [scale(u)?, scale(u)?, scale(u)?],
        })
    }
}

/// The specification, head by head.
fn specified<O: Output>(heads: Heads<'_>, out: &mut [O]) -> std::result::Result<(), FloatError> {
    for (head, out) in heads.split(out)? {
        attend(head.parameters, head.inputs, head.mask, &mut vec![0; scratch_len(head.parameters.dim())], out)
            .expect("checked");
    }
    Ok(())
}

/// The same for floats, each head of each tensor with a scale of its own.
fn specified_f32(heads: FloatHeads<'_>, out: &mut [f32]) -> std::result::Result<(), FloatError> {
    heads.check(out.len())?;
    let mut quantised = heads.tensors().map(|(_, values, count)| (vec![0; values.len()], vec![0.0; count]));
    for ((tensor, values, _), (quantised, scales)) in heads.tensors().into_iter().zip(&mut quantised) {
        quantise_heads(values, quantised, scales).map_err(|error| FloatError::Quantise { tensor, error })?;
    }
    let [(query, query_scales), (key, key_scales), (value, value_scales)] = &quantised;
    let group = query_scales.len() / heads.kv_heads;
    let parameters = query_scales.iter().enumerate().map(|(h, &query)| {
        let (key, value) = (key_scales[h / group], value_scales[h / group]);
        Parameters::new(heads.dim, Scales { query, key, value, out: value })
    });
    let parameters = parameters.collect::<std::result::Result<Vec<_>, _>>()?;
    let inputs = Inputs { query, key, value };
    specified(Heads { parameters: &parameters, masks: heads.masks, kv_heads: heads.kv_heads, inputs }, out)
}

/// The kernels on this CPU, which take what the specification takes, but for boolean masks.
fn check_kernels(heads: Heads<'_>, result: std::result::Result<(), FloatError>, expected: &[i8]) {
    let mut floats = vec![77.0_f32; expected.len()];
    let is_taken = attn_npu::check_masks(heads.masks).is_ok();
    if is_taken {
        assert_eq!(specified(heads, &mut floats), result);
    }
    let bits = |out: &[f32]| out.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    for kernel in Kernel::ALL {
        let mut attention = attn_npu::Attention::new(kernel).expect("compiled");
        let mut got = vec![77; expected.len()];
        let mut got_floats = vec![77.0; expected.len()];
        let results =
            [attention.attend(heads, &mut got, &|_| ()), attention.attend_f32(heads, &mut got_floats, &|_| ())];
        for other in results {
            match other {
                Err(NpuError::Mask(_)) => assert!(result.is_ok() && !is_taken),
                Err(NpuError::Attention(error)) => assert_eq!(Err(error.into()), result),
                Ok(()) => assert_eq!((Ok(()), is_taken), (result, true)),
            }
        }
        if is_taken {
            assert_eq!(got, expected, "{}", kernel.name());
            assert_eq!(bits(&got_floats), bits(&floats), "{}", kernel.name());
        } else {
            assert!(got.iter().all(|&x| x == 77) && got_floats.iter().all(|&x| x == 77.0), "{}", kernel.name());
        }
    }
}

static VALID: Valid = Valid::new();

// On one thread, so that the same case covers the same code.
fuzz_target!(init: rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build_global().expect("the first pool"),
|case: Case| {
    VALID.run();
    let masks = case.valid_keys.iter().zip(&case.causal).map(|(&valid_keys, &causal)| {
        let mut mask = Mask::new();
        if let Some(keys) = valid_keys {
            mask = mask.valid_keys(keys);
        }
        if let Some(offset) = causal {
            mask = mask.causal(offset);
        }
        if let Some((allowed, row)) = &case.allowed {
            mask = mask.allowed(allowed, *row);
        }
        mask
    });
    let masks: Vec<_> = masks.collect();
    let parameters = case.scales.iter().map(|&scales| Parameters::new(case.dim, scales)).collect::<Result<Vec<_>, _>>();
    let isas = || Isa::ALL.into_iter().filter_map(|isa| Attention::new(isa).ok());
    if let Ok(parameters) = parameters {
        let inputs = Inputs { query: &case.query, key: &case.key, value: &case.value };
        let heads = Heads { parameters: &parameters, masks: &masks, kv_heads: case.kv_heads, inputs };
        let mut expected = vec![77; case.out_len];
        let result = specified(heads, &mut expected);
        if result.is_ok() {
            VALID.valid();
        }
        for mut attention in isas() {
            let mut got = vec![77; case.out_len];
            assert_eq!(attention.attend(heads, &mut got, &|_| ()).map_err(FloatError::from), result);
            assert_eq!(got, expected, "{:?}", attention.isa());
        }
        check_kernels(heads, result, &expected);
        // All heads as one, which may have any shape, and memory that may be too short.
        if let [parameters, ..] = &parameters[..] {
            let mut scratch = vec![0; case.scratch_len];
            _ = attend(parameters, inputs, &masks[0], &mut scratch, &mut expected);
        }
    }

    let floats = |tensor: &[i8], worth: f32| tensor.iter().map(|&x| f32::from(x) * worth).collect::<Vec<_>>();
    let query = floats(&case.query, case.worth[0]);
    let (key, value) = (floats(&case.key, case.worth[1]), floats(&case.value, case.worth[2]));
    let heads =
        FloatHeads { dim: case.dim, masks: &masks, kv_heads: case.kv_heads, query: &query, key: &key, value: &value };
    let mut expected = vec![77.0_f32; case.out_len];
    // As text, for what is not finite may be NaN.
    let result = specified_f32(heads, &mut expected).map_err(|error| error.to_string());
    for mut attention in isas() {
        let mut got = vec![77.0_f32; case.out_len];
        let other = attention.attend_f32(heads, &mut got, &|_| ()).map_err(|error| error.to_string());
        assert_eq!(other, result, "{:?}", attention.isa());
        let bits = |out: &[f32]| out.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&got), bits(&expected), "{:?}", attention.isa());
    }
});

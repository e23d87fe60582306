//! Calls as C makes them, in Rust, where an interpreter sees every access (`cargo xtask sanitizer`). What the library says to C is
//! asked in `tests/attn.c`.

use std::{ffi::CStr, ptr};

use attention::backend::{BackendError, Progress};

use super::*;

const DIM: usize = 8;
/// Elements of queries and outputs, 2 heads of 3, and of keys and values, 1 head of 5.
const QUERY: usize = 2 * 3 * DIM;
const KEY: usize = 5 * DIM;

fn open() -> *mut attn_backend {
    let mut backend = ptr::null_mut();
    // SAFETY: texts, and a place for the backend.
    assert_eq!(unsafe { attn_open(c"scalar".as_ptr(), ptr::null(), &raw mut backend) }, attn_status::Ok);
    backend
}

/// Pointers that are wrong are refused before anything is read or written; the right ones are enough, one element after the other.
#[test]
fn pointers_of_integers() {
    let backend = open();
    let mut memory: Vec<i8> = (0..QUERY + 2 * KEY).map(|i| i as i8).collect();
    let query = memory.as_mut_ptr();
    let key = query.wrapping_add(QUERY);
    let (valid_keys, causal, allowed) = ([5, 4], [0, 2], [1, 0, 1, 1, 0]);
    let mask = attn_mask {
        valid_keys: valid_keys.as_ptr(),
        causal: causal.as_ptr(),
        allowed: allowed.as_ptr(),
        allowed_shape: [1, 1, 5],
    };
    let scales = [0.1_f32; 2];
    let good = || attn_heads {
        dim: DIM,
        heads: 2,
        kv_heads: 1,
        query,
        query_len: QUERY,
        key,
        key_len: KEY,
        value: key.wrapping_add(KEY),
        value_len: KEY,
        query_scales: scales.as_ptr(),
        key_scales: scales.as_ptr(),
        value_scales: scales.as_ptr(),
        out_scales: scales.as_ptr(),
        mask: attn_mask { ..mask },
    };
    let mut out = [99; QUERY];
    // SAFETY: as many elements as are stated, or what is refused.
    let attend = |heads: *const attn_heads, out| unsafe { attn_attend(backend, heads, out, QUERY) };
    let out_pointer = out.as_mut_ptr();
    assert_eq!(attend(ptr::null(), out_pointer), attn_status::Null);
    assert_eq!(attend(ptr::from_ref(&good()).wrapping_byte_add(1), out_pointer), attn_status::Misaligned);
    assert_eq!(attend(&good(), ptr::null_mut()), attn_status::Null);
    for (bad, status) in [
        (attn_heads { query: ptr::null(), ..good() }, attn_status::Null),
        (attn_heads { key_scales: scales.as_ptr().wrapping_byte_add(1), ..good() }, attn_status::Misaligned),
        (attn_heads { query_len: 0, ..good() }, attn_status::Shape),
        // Nothing lies there, and nobody looks.
        (attn_heads { key: ptr::dangling(), key_len: 0, ..good() }, attn_status::Shape),
        (attn_heads { value: ptr::dangling(), value_len: usize::MAX, ..good() }, attn_status::Shape),
        (attn_heads { mask: attn_mask { allowed: [1, 2, 1, 1, 0].as_ptr(), ..mask }, ..good() }, attn_status::Mask),
        (attn_heads { mask: attn_mask { allowed_shape: [1, 1, usize::MAX], ..mask }, ..good() }, attn_status::Mask),
    ] {
        assert_eq!(attend(&raw const bad, out_pointer), status);
    }
    for place in [query, key.wrapping_sub(1), key.wrapping_add(2 * KEY - QUERY)] {
        assert_eq!(attend(&good(), place), attn_status::Overlap);
    }
    assert_eq!(out, [99; QUERY]);
    assert_eq!(attend(&good(), out.as_mut_ptr()), attn_status::Ok);
    assert_ne!(out, [99; QUERY]);
    // SAFETY: open, and of no more use.
    unsafe { attn_close(backend) };
}

#[test]
fn pointers_of_floats() {
    let backend = open();
    let mut floats: Vec<f32> = (0..QUERY + KEY).map(|i| i as f32 / 50.0).collect();
    let query = floats.as_mut_ptr();
    let key = query.wrapping_add(QUERY);
    let none = attn_mask { valid_keys: ptr::null(), causal: ptr::null(), allowed: ptr::null(), allowed_shape: [0; 3] };
    let (query_len, key_len) = (QUERY, KEY);
    // Keys that are the values, too.
    let heads = attn_heads_f32 {
        dim: DIM,
        heads: 2,
        kv_heads: 1,
        query,
        query_len,
        key,
        key_len,
        value: key,
        value_len: KEY,
        mask: none,
    };
    let mut out = [99.0; QUERY];
    // SAFETY: as many elements as are stated, or what is refused.
    let attend = |out| unsafe { attn_attend_f32(backend, &raw const heads, out, QUERY) };
    assert_eq!(attend(query.wrapping_add(1)), attn_status::Overlap);
    assert_eq!(attend(out.as_mut_ptr().wrapping_byte_add(1)), attn_status::Misaligned);
    assert_eq!(attend(out.as_mut_ptr()), attn_status::Ok);
    assert!(out.iter().all(|x| x.abs() < 2.0));

    let (mut quantised, mut scales) = ([99; QUERY], [0.0; 2]);
    // SAFETY: as above.
    let mut quantise = |values, scales| unsafe { attn_quantise(values, quantised.as_mut_ptr(), QUERY, scales, 2) };
    assert_eq!(quantise(query, query), attn_status::Overlap);
    assert_eq!(quantise(query, ptr::null_mut()), attn_status::Null);
    assert_eq!(quantise(query, scales.as_mut_ptr()), attn_status::Ok);
    assert_eq!(quantised[QUERY - 1], 127);

    // SAFETY: open, then closed, and NULL.
    unsafe {
        assert_eq!(CStr::from_ptr(attn_name(backend)), c"scalar");
        attn_close(backend);
        assert!(attn_name(ptr::null()).is_null());
        attn_close(ptr::null_mut());
    }
}

#[test]
fn pointers_of_texts() {
    let mut backend: *mut attn_backend = ptr::dangling_mut();
    // SAFETY: texts, and a place for the backend, or what is refused.
    let open = |name, opened| unsafe { attn_open(name, ptr::null(), opened) };
    let place = &raw mut backend;
    assert_eq!(open(c"scalar".as_ptr(), ptr::null_mut()), attn_status::Null);
    assert_eq!(open(c"scalar".as_ptr(), place.wrapping_byte_add(1)), attn_status::Misaligned);
    assert_eq!(open(ptr::null(), place), attn_status::Null);
    assert_eq!(open(c"\xff".as_ptr(), place), attn_status::Text);
    assert_eq!(open(c"cuda".as_ptr(), place), attn_status::UnknownBackend);
    // SAFETY: texts, and a place for the backend.
    let status = unsafe { attn_open(c"scalar".as_ptr(), c"attn.xclbin".as_ptr(), place) };
    assert_eq!(status, attn_status::Unsupported);
    assert!(backend.is_null());
}

struct Broken;

impl Backend for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }

    fn description(&self) -> &'static str {
        "panics"
    }

    fn attend(&mut self, _: Heads<'_>, _: &mut [i8], _: Progress<'_>) -> Result<(), BackendError> {
        panic!("got what nobody expected")
    }

    fn attend_f32(&mut self, _: FloatHeads<'_>, _: &mut [f32], _: Progress<'_>) -> Result<(), BackendError> {
        panic!("got what nobody expected")
    }
}

#[test]
fn a_backend_that_panicked_can_only_be_closed() {
    let backend = attn_backend { name: c"broken".into(), is_on_threads: false, backend: Mutex::new(Box::new(Broken)) };
    let backend = Box::into_raw(Box::new(backend));
    let (tensor, scale, mut out) = ([1_i8; 8], 1.0_f32, [99_i8; 8]);
    let tensor_len = tensor.len();
    let heads = attn_heads {
        dim: 8,
        heads: 1,
        kv_heads: 1,
        query: tensor.as_ptr(),
        query_len: tensor_len,
        key: tensor.as_ptr(),
        key_len: tensor_len,
        value: tensor.as_ptr(),
        value_len: tensor_len,
        query_scales: &raw const scale,
        key_scales: &raw const scale,
        value_scales: &raw const scale,
        out_scales: &raw const scale,
        mask: attn_mask { valid_keys: ptr::null(), causal: ptr::null(), allowed: ptr::null(), allowed_shape: [0; 3] },
    };
    for expected in ["a bug: got what nobody expected", "backend: an earlier call panicked, close it"] {
        // SAFETY: all of it is there.
        let (status, message) = unsafe {
            let status = attn_attend(backend, &raw const heads, out.as_mut_ptr(), out.len());
            (status, CStr::from_ptr(attn_last_error()).to_string_lossy().into_owned())
        };
        assert_eq!((status, &*message), (attn_status::Internal, expected));
        assert_eq!(out, [99; 8]);
    }
    // SAFETY: it is open.
    unsafe { attn_close(backend) };
}

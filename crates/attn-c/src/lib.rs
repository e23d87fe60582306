//! Scaled dot-product attention in integers for C: the backends of [`attention::backend`] behind a handful of functions.
//!
//! `include/attn.h` is generated from this crate (`cargo xtask generate`), with the comments of the items as they stand here:
//! they are written for readers of C.
//!
//! # The way of a call
//! | step | module |
//! |---|---|
//! | pointers and lengths become slices, where that can be: not null, aligned, of a size that there is, the output apart | `tensors`, `memory` |
//! | numbers of a mask become [`Mask`](attention::Mask)s | `mask` |
//! | [`attention`] checks the rest, and computes | |
//! | what failed becomes a status and a message; no panic leaves | `status` |
#![allow(unsafe_code, reason = "the interface is one of pointers")]
#![allow(non_camel_case_types, reason = "the names are the header's")]

mod mask;
mod memory;
mod status;
mod tensors;
#[cfg(test)]
mod tests;

use std::{
    ffi::{CString, c_char},
    ptr, slice,
    sync::{Mutex, MutexGuard},
};

use attention::{
    FloatHeads, Heads, Inputs, Mask, Parameters, Scales,
    backend::{Backend, BackendKind, Isa, Options},
    quantise_heads,
};
use attn_cpu::start_threads;

pub use mask::attn_mask;
pub use status::attn_status;

use memory::{Span, each, input, object, output, place, text};
use status::{Failure, guard};
use tensors::{Shape, Tensors};

/// A backend, ready to compute. Several threads may use one: their calls wait for each other.
pub struct attn_backend {
    name: CString,
    /// Whether it computes on threads, which are started by the first call.
    is_on_threads: bool,
    backend: Mutex<Box<dyn Backend>>,
}

/// Attention over several heads of one shape, in int8: what an element stands for is `scale * element`. Batches are heads, too.
///
/// Lengths are in elements, and say how many queries and keys there are.
#[repr(C)]
pub struct attn_heads {
    /// Head dimension, 8 to 256.
    pub dim: usize,
    /// Number of query heads.
    pub heads: usize,
    /// Number of key and value heads, a divisor of `heads`: query head `h` reads head `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// `[heads, queries, dim]`
    pub query: *const i8,
    /// `heads * queries * dim`, with at least 1 query.
    pub query_len: usize,
    /// `[kv_heads, keys, dim]`
    pub key: *const i8,
    /// `kv_heads * keys * dim`, with 1 to 2^20 keys.
    pub key_len: usize,
    /// `[kv_heads, keys, dim]`
    pub value: *const i8,
    /// As `key_len`.
    pub value_len: usize,
    /// `[heads]`, positive and finite. The softmax scale is `1 / sqrt(dim)`; another one is a factor of these.
    pub query_scales: *const f32,
    /// `[kv_heads]`, positive and finite, with `query scale * key scale * sqrt(dim) <= 32`.
    pub key_scales: *const f32,
    /// `[kv_heads]`, positive and finite.
    pub value_scales: *const f32,
    /// `[heads]`, those of the output, with `2^-16 <= value scale / output scale <= 2^16`. With the scale of the values no
    /// output saturates.
    pub out_scales: *const f32,
    /// Which keys are seen.
    pub mask: attn_mask,
}

/// The same in float32. Each head of each tensor is quantised by its largest magnitude / 127; the output is not rounded to 8
/// bits.
#[repr(C)]
pub struct attn_heads_f32 {
    /// Head dimension, 8 to 256.
    pub dim: usize,
    /// Number of query heads.
    pub heads: usize,
    /// Number of key and value heads, a divisor of `heads`: query head `h` reads head `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// `[heads, queries, dim]`, finite.
    pub query: *const f32,
    /// `heads * queries * dim`, with at least 1 query.
    pub query_len: usize,
    /// `[kv_heads, keys, dim]`, finite.
    pub key: *const f32,
    /// `kv_heads * keys * dim`, with 1 to 2^20 keys.
    pub key_len: usize,
    /// `[kv_heads, keys, dim]`, finite.
    pub value: *const f32,
    /// As `key_len`.
    pub value_len: usize,
    /// Which keys are seen.
    pub mask: attn_mask,
}

/// The version of the library, such as `0.1.0`.
#[unsafe(no_mangle)]
pub extern "C" fn attn_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Why the last call of this thread that failed did so: one line, with what was given and what is expected. Empty before the
/// first one; there until the next one.
#[unsafe(no_mangle)]
pub extern "C" fn attn_last_error() -> *const c_char {
    status::last_error()
}

/// Makes a backend ready to compute.
///
/// `name`: `auto`, which is the fastest one of this CPU; `scalar`, the specification; `avx512-vnni`, `avx512-bw`, `avx-vnni`,
/// `avx2`; `kernel`, `aie2-model`, the NPU's kernels on this CPU; `npu`, in a library that was built with it. All give the same
/// bits, and none stands in for another one.
///
/// `xclbin`: the file that an NPU is to run, in UTF-8; NULL for the other backends.
///
/// `opened`: where the backend is written, to be closed with `attn_close`; NULL if this fails.
///
/// The vector backends compute on as many threads as there are cores, or as `RAYON_NUM_THREADS` in the environment says, which
/// the first call starts: a process that forks after that must not use them in the child.
///
/// # Safety
/// `name` and `xclbin` are NULL or end with a zero; `opened` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attn_open(
    name: *const c_char,
    xclbin: *const c_char,
    opened: *mut *mut attn_backend,
) -> attn_status {
    guard(|| {
        place("opened", opened)?;
        // SAFETY: as the caller says.
        unsafe { opened.write(ptr::null_mut()) };
        // SAFETY: as the caller says.
        let kind: BackendKind = unsafe { text("name", name) }?.parse()?;
        let is_on_threads = match kind {
            BackendKind::Cpu(_) => true,
            BackendKind::Auto => Isa::best().is_some(),
            _ => false,
        };
        // SAFETY: as the caller says.
        let xclbin = if xclbin.is_null() { None } else { Some(unsafe { text("xclbin", xclbin) }?.into()) };
        let backend = kind.open(&Options { xclbin, ..Options::default() })?;
        let name = CString::new(backend.name()).unwrap_or_default();
        let backend = Box::into_raw(Box::new(attn_backend { name, is_on_threads, backend: Mutex::new(backend) }));
        // SAFETY: as the caller says.
        unsafe { opened.write(backend) };
        Ok(())
    })
}

/// What computes: the name of the backend, of the chosen one for `auto`; of an NPU also its device, driver, firmware and xclbin.
/// There until the backend is closed. NULL for NULL.
///
/// # Safety
/// `backend` is NULL or open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attn_name(backend: *const attn_backend) -> *const c_char {
    // SAFETY: as the caller says.
    unsafe { backend.as_ref() }.map_or(ptr::null(), |backend| backend.name.as_ptr())
}

/// Computes attention and writes `out`, `[heads, queries, dim]`: the same bits on every backend.
///
/// If it fails, `out` is untouched; only an NPU that fails while it computes leaves it of no use.
///
/// # Safety
/// `backend` is NULL or open. Every other pointer is NULL or to as many elements as are stated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attn_attend(
    backend: *const attn_backend,
    heads: *const attn_heads,
    out: *mut i8,
    out_len: usize,
) -> attn_status {
    guard(|| {
        // SAFETY: as the caller says.
        let (backend, call) = unsafe { (object("backend", backend)?, object("heads", heads)?) };
        let attn_heads { dim, heads, kv_heads, .. } = *call;
        let shape = Shape { dim, heads, kv_heads };
        let pointers = [(call.query, call.query_len), (call.key, call.key_len), (call.value, call.value_len)];
        // SAFETY: as the caller says.
        let tensors = unsafe { Tensors::new(shape, pointers, out_len) }?;
        // SAFETY: as the caller says.
        let [query_scales, key_scales, value_scales, out_scales] = unsafe {
            [
                input("query scales", call.query_scales, heads)?,
                input("key scales", call.key_scales, kv_heads)?,
                input("value scales", call.value_scales, kv_heads)?,
                input("output scales", call.out_scales, heads)?,
            ]
        };
        let parameters = |h: usize| {
            let kv = h / (heads / kv_heads);
            let (query, out) = (query_scales[h], out_scales[h]);
            Ok(Parameters::new(dim, Scales { query, key: key_scales[kv], value: value_scales[kv], out })?)
        };
        let Tensors { query, key, value } = tensors.first(shape);
        let inputs = Inputs { query, key, value };
        let first = Heads { parameters: &[parameters(0)?], masks: &[Mask::new()], kv_heads: 1, inputs };
        first.check(out_len / heads)?;
        let parameters = each(heads, parameters)?;
        let read = [
            Span::of("heads", slice::from_ref(call)),
            Span::of("query scales", query_scales),
            Span::of("key scales", key_scales),
            Span::of("value scales", value_scales),
            Span::of("output scales", out_scales),
        ];
        // SAFETY: as the caller says.
        let (masks, out) = unsafe { tensors.masks_and_output(shape, &call.mask, &read, (out, out_len)) }?;
        let Tensors { query, key, value } = tensors;
        let inputs = Inputs { query, key, value };
        let heads = Heads { parameters: &parameters, masks: &masks, kv_heads, inputs };
        Ok(backend.lock()?.attend(heads, out, &|_| ())?)
    })
}

/// The same in float32, not rounded to 8 bits at the end: the same bits on every backend but `npu`, which has no float32.
///
/// # Safety
/// As `attn_attend`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attn_attend_f32(
    backend: *const attn_backend,
    heads: *const attn_heads_f32,
    out: *mut f32,
    out_len: usize,
) -> attn_status {
    guard(|| {
        // SAFETY: as the caller says.
        let (backend, call) = unsafe { (object("backend", backend)?, object("heads", heads)?) };
        let attn_heads_f32 { dim, heads, kv_heads, .. } = *call;
        let shape = Shape { dim, heads, kv_heads };
        let pointers = [(call.query, call.query_len), (call.key, call.key_len), (call.value, call.value_len)];
        // SAFETY: as the caller says.
        let tensors = unsafe { Tensors::new(shape, pointers, out_len) }?;
        let Tensors { query, key, value } = tensors.first(shape);
        FloatHeads { dim, masks: &[Mask::new()], kv_heads: 1, query, key, value }.check(out_len / heads)?;
        let read = [Span::of("heads", slice::from_ref(call))];
        // SAFETY: as the caller says.
        let (masks, out) = unsafe { tensors.masks_and_output(shape, &call.mask, &read, (out, out_len)) }?;
        let Tensors { query, key, value } = tensors;
        let heads = FloatHeads { dim, masks: &masks, kv_heads, query, key, value };
        Ok(backend.lock()?.attend_f32(heads, out, &|_| ())?)
    })
}

/// Quantises `values`, `heads` heads of equal length one after the other, to `quantised`, each with a scale of its own, its
/// largest magnitude / 127, which is written to `scales`.
///
/// `len` is the number of values and of quantised ones, a positive multiple of `heads`, the number of scales. If this fails,
/// the outputs are untouched.
///
/// # Safety
/// Every pointer is NULL or to as many elements as are stated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attn_quantise(
    values: *const f32,
    quantised: *mut i8,
    len: usize,
    scales: *mut f32,
    heads: usize,
) -> attn_status {
    guard(|| {
        // SAFETY: as the caller says.
        let values = unsafe { input("values", values, len) }?;
        let values_span = Span::of("values", values);
        // SAFETY: as the caller says.
        let quantised = unsafe { output("quantised", quantised, len, &[values_span]) }?;
        let inputs = [values_span, Span::of("quantised", quantised)];
        // SAFETY: as the caller says.
        let scales = unsafe { output("scales", scales, heads, &inputs) }?;
        Ok(quantise_heads(values, quantised, scales)?)
    })
}

/// Closes a backend, which no thread may use any longer. NULL is fine.
///
/// # Safety
/// `backend` is NULL or open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attn_close(backend: *mut attn_backend) {
    guard(|| {
        if !backend.is_null() {
            // SAFETY: `attn_open` made it, and the caller has no other use for it.
            drop(unsafe { Box::from_raw(backend) });
        }
        Ok(())
    });
}

impl attn_backend {
    fn lock(&self) -> Result<MutexGuard<'_, Box<dyn Backend>>, Failure> {
        if self.is_on_threads {
            start_threads()?;
        }
        let panicked = |_| Failure::new(attn_status::Internal, "backend: an earlier call panicked, close it");
        self.backend.lock().map_err(panicked)
    }
}

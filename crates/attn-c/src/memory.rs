//! What a caller's pointers are to.

use std::{
    ffi::{CStr, c_char},
    slice,
};

use crate::status::{Failure, attn_status};

/// The addresses of what is read.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    name: &'static str,
    first: usize,
    bytes: usize,
}

impl Span {
    pub(crate) fn of<T>(name: &'static str, slice: &[T]) -> Self {
        Self { name, first: slice.as_ptr().addr(), bytes: size_of_val(slice) }
    }

    /// Both are inside the address space.
    fn overlaps(self, other: Self) -> bool {
        self.first < other.first + other.bytes && other.first < self.first + self.bytes
    }
}

/// An object.
///
/// # Safety
/// The pointer is null, not aligned, or to one that is valid.
pub(crate) unsafe fn object<'a, T>(name: &str, pointer: *const T) -> Result<&'a T, Failure> {
    check(name, pointer, 1)?;
    // SAFETY: not null, aligned, and the caller's promise.
    Ok(unsafe { &*pointer })
}

/// A place that one value can be written to.
pub(crate) fn place<T>(name: &str, pointer: *mut T) -> Result<(), Failure> {
    check(name, pointer, 1)
}

/// `len` elements that are read.
///
/// # Safety
/// The pointer is null, not aligned, or to so many of them; nobody writes them meanwhile.
pub(crate) unsafe fn input<'a, T>(name: &str, pointer: *const T, len: usize) -> Result<&'a [T], Failure> {
    check(name, pointer, len)?;
    // SAFETY: not null, aligned, of a size that there is, and the caller's promise.
    Ok(unsafe { slice::from_raw_parts(pointer, len) })
}

/// `len` elements that are written, which none of what is read overlaps.
///
/// # Safety
/// As [`input`], and nobody reads them meanwhile.
pub(crate) unsafe fn output<'a, T>(
    name: &'static str,
    pointer: *mut T,
    len: usize,
    inputs: &[Span],
) -> Result<&'a mut [T], Failure> {
    check(name, pointer, len)?;
    let output = Span { name, first: pointer.addr(), bytes: len * size_of::<T>() };
    if let Some(input) = inputs.iter().find(|input| output.overlaps(**input)) {
        let message = format!("{name}: got memory of {}, expected memory of its own", input.name);
        return Err(Failure::new(attn_status::Overlap, message));
    }
    // SAFETY: not null, aligned, of a size that there is, apart from what is read, and the caller's promise.
    Ok(unsafe { slice::from_raw_parts_mut(pointer, len) })
}

/// What there is one of for every head.
pub(crate) fn each<T>(heads: usize, mut of: impl FnMut(usize) -> Result<T, Failure>) -> Result<Vec<T>, Failure> {
    let mut each = Vec::new();
    each.try_reserve_exact(heads).map_err(|error| {
        Failure::new(attn_status::Resources, format!("heads: got {heads}, for which there is no memory: {error}"))
    })?;
    for head in 0..heads {
        each.push(of(head)?);
    }
    Ok(each)
}

/// A text that ends with a zero.
///
/// # Safety
/// The pointer is null or to one.
pub(crate) unsafe fn text<'a>(name: &str, pointer: *const c_char) -> Result<&'a str, Failure> {
    check(name, pointer, 1)?;
    // SAFETY: not null, and the caller's promise.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map_err(|_| {
        let message = format!("{name}: got `{}`, expected UTF-8", text.to_string_lossy());
        Failure::new(attn_status::Text, message)
    })
}

/// That a slice may be there.
fn check<T>(name: &str, pointer: *const T, len: usize) -> Result<(), Failure> {
    let (align, most) = (align_of::<T>(), isize::MAX.unsigned_abs() / size_of::<T>().max(1));
    if pointer.is_null() {
        return Err(Failure::new(attn_status::Null, format!("{name}: got NULL, expected an address")));
    }
    if !pointer.is_aligned() {
        let message = format!("{name}: got address {:#x}, expected a multiple of {align}", pointer.addr());
        return Err(Failure::new(attn_status::Misaligned, message));
    }
    if len > most.min((usize::MAX - pointer.addr()) / size_of::<T>().max(1)) {
        let message = format!("{name}: got {len} elements of {} bytes, expected what memory holds", size_of::<T>());
        return Err(Failure::new(attn_status::Shape, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_memory_there_is_a_status() {
        let failure = each(usize::MAX / 16, |head| Ok(head as u64)).expect_err("more than there is anywhere");
        assert!(format!("{failure:?}").contains("status: Resources"), "{failure:?}");
        assert_eq!(each(3, Ok).expect("room for three"), [0, 1, 2]);
    }
}

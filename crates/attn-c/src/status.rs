//! How a call says what was wrong.

use std::{
    any::Any,
    cell::RefCell,
    ffi::{CString, c_char},
    panic::{AssertUnwindSafe, catch_unwind},
};

use attention::{AttentionError, FloatError, ParameterError, QuantiseError, backend::BackendError, text::printable};
use attn_cpu::ThreadsError;

/// What came of a call. The numbers stay as they are.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum attn_status {
    /// It was done.
    Ok = 0,
    /// A pointer is NULL where one is needed.
    Null = 1,
    /// A pointer is not aligned for what it is to.
    Misaligned = 2,
    /// An output lies in the memory of an input.
    Overlap = 3,
    /// A text is not UTF-8.
    Text = 4,
    /// Lengths, numbers of heads and the dimension do not fit each other, or are more than is taken.
    Shape = 5,
    /// A scale, or scales together, that cannot be.
    Scale = 6,
    /// A mask does not fit, or has a byte that is neither 0 nor 1.
    Mask = 7,
    /// A float is NaN or infinite.
    NotFinite = 8,
    /// No backend has this name.
    UnknownBackend = 9,
    /// This CPU, or this library, does not have the backend.
    Unavailable = 10,
    /// Other backends take this, this one does not: boolean masks, float32, so many keys, an xclbin.
    Unsupported = 11,
    /// What an NPU lacks, or what happened to it.
    Npu = 12,
    /// A bug in the library. A backend that it happened to can only be closed.
    Internal = 13,
    /// The system has no memory, or no threads, for what a call needs.
    Resources = 14,
}

/// Why a call failed.
#[derive(Debug)]
pub(crate) struct Failure {
    status: attn_status,
    message: String,
}

impl Failure {
    pub(crate) fn new(status: attn_status, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    fn of_panic(panic: &(dyn Any + Send)) -> Self {
        let what = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref().map(String::as_str));
        Self::new(attn_status::Internal, format!("a bug: {}", what.unwrap_or("a panic")))
    }
}

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

/// Makes a status of what a call does, a panic too, and keeps the message.
pub(crate) fn guard(call: impl FnOnce() -> Result<(), Failure>) -> attn_status {
    let result = catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| Err(Failure::of_panic(&*panic)));
    let Err(Failure { status, message }) = result else { return attn_status::Ok };
    // One line, whatever names a caller gave.
    let message = CString::new(printable(&message)).unwrap_or_default();
    // A thread that is ending has nobody left to read it.
    _ = LAST_ERROR.try_with(|last| last.replace(message));
    status
}

/// The message of this thread.
pub(crate) fn last_error() -> *const c_char {
    LAST_ERROR.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

impl From<AttentionError> for Failure {
    fn from(error: AttentionError) -> Self {
        let status = match error {
            AttentionError::Mask(_) => attn_status::Mask,
            _ => attn_status::Shape,
        };
        Self::new(status, error.to_string())
    }
}

impl From<ParameterError> for Failure {
    fn from(error: ParameterError) -> Self {
        let status = match error {
            ParameterError::Dim { .. } => attn_status::Shape,
            _ => attn_status::Scale,
        };
        Self::new(status, error.to_string())
    }
}

impl From<QuantiseError> for Failure {
    fn from(error: QuantiseError) -> Self {
        let status = match error {
            QuantiseError::NotFinite { .. } => attn_status::NotFinite,
            _ => attn_status::Shape,
        };
        Self::new(status, error.to_string())
    }
}

impl From<FloatError> for Failure {
    fn from(error: FloatError) -> Self {
        let message = error.to_string();
        let failure = match error {
            FloatError::Attention(error) => error.into(),
            FloatError::Parameters(error) => error.into(),
            FloatError::Quantise { error, .. } => error.into(),
            _ => Self::new(attn_status::Internal, ""),
        };
        Self { message, ..failure }
    }
}

impl From<ThreadsError> for Failure {
    fn from(error: ThreadsError) -> Self {
        Self::new(attn_status::Resources, error.to_string())
    }
}

impl From<BackendError> for Failure {
    fn from(error: BackendError) -> Self {
        let message = error.to_string();
        let status = match error {
            BackendError::Unknown { .. } => attn_status::UnknownBackend,
            BackendError::Unavailable(_) => attn_status::Unavailable,
            BackendError::Attention(error) => Self::from(error).status,
            BackendError::Float(error) => Self::from(error).status,
            BackendError::Mask(_)
            | BackendError::Room { .. }
            | BackendError::NoFloats
            | BackendError::Xclbin { .. } => attn_status::Unsupported,
            // No xclbin, or what happened to an NPU.
            _ => attn_status::Npu,
        };
        Self { status, message }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    fn message() -> String {
        // SAFETY: it ends with a zero, and is there until the next failure of this thread.
        unsafe { CStr::from_ptr(last_error()) }.to_str().expect("text").to_owned()
    }

    #[test]
    fn a_panic_is_a_status() {
        assert_eq!(message(), "");
        assert_eq!(guard(|| panic!("sum of {}", 1)), attn_status::Internal);
        assert_eq!(message(), "a bug: sum of 1");
        assert_eq!(guard(|| Ok(())), attn_status::Ok);
        assert_eq!(message(), "a bug: sum of 1");
        assert_eq!(std::thread::spawn(message).join().expect("ends"), "");
    }
}

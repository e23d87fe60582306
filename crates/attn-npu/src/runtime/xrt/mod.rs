//! XRT, as far as a session needs it: one trait, and what calls XRT behind it.
#![cfg_attr(
    not(any(feature = "xrt-shim", feature = "xrt", all(test, kernel))),
    allow(dead_code, reason = "nothing to call XRT with")
)]

#[cfg(all(test, kernel))]
pub(super) mod fake;
#[cfg(feature = "xrt")]
mod ffi;
#[cfg(feature = "xrt-shim")]
mod shim;

use std::{fmt, ptr::NonNull, sync::atomic::AtomicUsize, time::Duration};

use crate::layout::Line;

/// Calls of XRT that this program can make: each gives the same results, and is the same to a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Binding {
    /// Our own library over XRT's C++ interface, opened when a session is: feature `xrt-shim`.
    #[cfg(feature = "xrt-shim")]
    Shim,
    /// XRT's C interface, by the crate `xrt`, whose licence is the AGPL-3.0: feature `xrt`. Where there is no XRT the program does not
    /// start.
    #[cfg(feature = "xrt")]
    Crate,
}

impl Binding {
    /// Those that were built in.
    pub const ALL: &[Self] = &[
        #[cfg(feature = "xrt-shim")]
        Self::Shim,
        #[cfg(feature = "xrt")]
        Self::Crate,
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            #[cfg(feature = "xrt-shim")]
            Self::Shim => "xrt-shim",
            #[cfg(feature = "xrt")]
            Self::Crate => "xrt",
        }
    }

    /// Finds XRT.
    #[cfg_attr(
        all(feature = "xrt", not(feature = "xrt-shim")),
        expect(clippy::unnecessary_wraps, reason = "a program that is linked with XRT has it")
    )]
    pub(super) fn open_xrt(self) -> Result<(), XrtError> {
        match self {
            #[cfg(feature = "xrt-shim")]
            Self::Shim => shim::open_xrt(),
            #[cfg(feature = "xrt")]
            Self::Crate => {
                ffi::open_xrt();
                Ok(())
            }
        }
    }

    /// Opens a device by its number.
    #[cfg_attr(not(any(feature = "xrt-shim", feature = "xrt")), expect(unused_variables, reason = "there is none"))]
    pub(super) fn open(self, device: u32) -> Result<Box<dyn Xrt>, XrtError> {
        match self {
            #[cfg(feature = "xrt-shim")]
            Self::Shim => Ok(Box::new(shim::Shim::open(device)?)),
            #[cfg(feature = "xrt")]
            Self::Crate => Ok(Box::new(ffi::Ffi::open(device)?)),
        }
    }
}

/// An open device. What is made of it goes away with it, which must not happen while a run is under way: XRT then ends the process.
pub(super) trait Xrt: Send {
    /// Registers an xclbin, makes a hardware context for it, and finds its kernel. Once, before all else.
    fn load(&mut self, xclbin: &[u8], kernel: &str) -> Result<(), XrtError>;

    /// Makes a buffer for an argument of the kernel, at least a byte, and maps it. Buffers are numbered from 0 on.
    fn buffer(&mut self, argument: u32, bytes: usize, kind: BufferKind) -> Result<Buffer, XrtError>;

    /// Makes what was written on one side visible on the other: the first bytes of a buffer.
    fn sync(&mut self, buffer: &Buffer, bytes: usize, direction: Direction) -> Result<(), XrtError>;

    /// Makes a run, to be started again and again. Runs are numbered from 0 on.
    fn run(&mut self) -> Result<usize, XrtError>;

    /// Starts a run with all its arguments.
    fn start(&mut self, run: usize, arguments: Arguments<'_>) -> Result<(), XrtError>;

    /// Waits for a run that was started, so long at most.
    fn wait(&mut self, run: usize, timeout: Duration) -> Result<RunState, XrtError>;

    /// Stays open when it is dropped.
    fn keep_open(&mut self);
}

/// Numbers of the kernel's arguments.
pub(super) const INSTRUCTIONS: u32 = 1;
pub(super) const DATA: u32 = 3;

/// What a run is started with: the instructions, and the data in the order of the design's arguments.
#[derive(Clone, Copy)]
pub(super) struct Arguments<'a> {
    pub(super) instructions: &'a Buffer,
    /// Words of the instructions.
    pub(super) words: u32,
    pub(super) data: &'a [Buffer],
}

/// What a buffer is for, which decides how it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BufferKind {
    Instructions,
    Data,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    ToDevice,
    FromDevice,
}

/// A buffer of the device, mapped.
pub(super) struct Buffer {
    /// Its number.
    pub(super) index: usize,
    lines: NonNull<[Line]>,
}

#[expect(unsafe_code, reason = "memory that the device sees too")]
impl Buffer {
    /// # Safety
    /// `map` points to so many bytes, rounded up to whole lines, that live as long as the open device does and are nobody else's;
    /// a mapping is page by page, so that the rest of the last line is there.
    unsafe fn new(index: usize, map: NonNull<u8>, bytes: usize) -> Self {
        assert!(map.cast::<Line>().is_aligned(), "a mapping starts on a page");
        let lines = NonNull::slice_from_raw_parts(map.cast(), bytes.div_ceil(size_of::<Line>()));
        Self { index, lines }
    }

    /// Its memory. No run that uses it is under way.
    pub(super) fn lines(&self) -> &[Line] {
        // SAFETY: as `new` was promised; numbers of 8 bits are valid whatever they are.
        unsafe { self.lines.as_ref() }
    }

    /// Its memory. No run that uses it is under way.
    pub(super) fn lines_mut(&mut self) -> &mut [Line] {
        // SAFETY: as in `lines`.
        unsafe { self.lines.as_mut() }
    }
}

// SAFETY: memory of the process, which a session owns alone.
#[expect(unsafe_code, reason = "a pointer")]
unsafe impl Send for Buffer {}

/// What became of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RunState {
    /// It is still under way.
    Running,
    Completed,
    /// It ended in another way, of which XRT says this.
    Failed(CommandState, String),
}

/// Runs of this process that were started, and whose end was not seen.
pub(super) static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// From now on the process ends at once if it ends while a run is under way: what XRT does at such an end is to abort, or to take down
/// what another thread is within. Once, when XRT is there: what is registered later is called earlier.
#[cfg(any(feature = "xrt-shim", feature = "xrt"))]
#[expect(unsafe_code, reason = "functions in C")]
pub(super) fn end_at_once() {
    use std::{
        ffi::{c_int, c_void},
        ptr,
        sync::{Once, atomic::Ordering},
    };

    unsafe extern "C" {
        /// Of glibc, as is the next.
        fn on_exit(function: extern "C" fn(c_int, *mut c_void), argument: *mut c_void) -> c_int;
        fn _exit(status: c_int) -> !;
    }

    extern "C" fn end(status: c_int, _: *mut c_void) {
        if UNDER_WAY.load(Ordering::SeqCst) > 0 {
            // SAFETY: it does not return; what the program printed was written before.
            unsafe { _exit(status) }
        }
    }

    static ONCE: Once = Once::new();
    // SAFETY: a function for the end of the process.
    ONCE.call_once(|| _ = unsafe { on_exit(end, ptr::null_mut()) });
}

#[cfg(any(feature = "xrt-shim", feature = "xrt"))]
impl RunState {
    /// From the numbers of XRT's `ert_cmd_state`.
    fn of(state: i32, said: String) -> Self {
        match state {
            1..=3 | 7 => Self::Running,
            4 => Self::Completed,
            _ => Self::Failed(CommandState(state), said),
        }
    }
}

/// How the driver says that a command ended, of XRT's `ert_cmd_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandState(pub i32);

impl CommandState {
    /// The command failed.
    pub const ERROR: Self = Self(5);
    /// The driver ended it.
    pub const ABORT: Self = Self(6);
    /// The driver waited for it in vain.
    pub const TIMEOUT: Self = Self(8);
}

impl fmt::Display for CommandState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            5 => "ERT_CMD_STATE_ERROR",
            6 => "ERT_CMD_STATE_ABORT",
            8 => "ERT_CMD_STATE_TIMEOUT",
            9 => "ERT_CMD_STATE_NORESPONSE",
            10 => "ERT_CMD_STATE_SKERROR",
            11 => "ERT_CMD_STATE_SKCRASHED",
            other => return write!(f, "state {other}"),
        })
    }
}

/// What XRT said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XrtError {
    /// What was asked of it.
    pub call: &'static str,
    /// Its words, or the loader's.
    pub text: String,
}

impl fmt::Display for XrtError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { call, text } = self;
        write!(f, "{call}: {}", text.trim_end())
    }
}

impl std::error::Error for XrtError {}

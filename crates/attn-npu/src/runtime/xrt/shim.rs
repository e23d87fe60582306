//! `shim/xrt_shim.cc`, which was compiled with this crate and is part of the program: it is opened when a session is, and with it
//! XRT, so that the program starts where there is none.
#![allow(unsafe_code, reason = "functions in C++")]

use std::{
    ffi::{CStr, CString, c_char, c_int, c_uint, c_void},
    io::Write as _,
    os::fd::AsRawFd as _,
    ptr::{self, NonNull},
    sync::OnceLock,
    time::Duration,
};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::{Arguments, Buffer, BufferKind, Direction, RunState, Xrt, XrtError};

/// The library, linked with XRT.
const LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/libattn_xrt_shim.so"));

/// A device, or its end.
#[repr(C)]
struct Session {
    _opaque: [u8; 0],
}

/// Where a function says what went wrong.
#[repr(C)]
#[derive(Clone, Copy)]
struct Text {
    text: *mut c_char,
    bytes: usize,
}

/// The functions of the shim.
struct Functions {
    open: unsafe extern "C" fn(c_uint, *mut *mut Session, Text) -> c_int,
    load: unsafe extern "C" fn(*mut Session, *const u8, usize, *const c_char, Text) -> c_int,
    buffer: unsafe extern "C" fn(*mut Session, c_int, usize, bool, *mut *mut c_void, Text) -> c_int,
    sync: unsafe extern "C" fn(*mut Session, usize, usize, bool, Text) -> c_int,
    run: unsafe extern "C" fn(*mut Session, Text) -> c_int,
    start: unsafe extern "C" fn(*mut Session, usize, usize, u32, *const usize, usize, Text) -> c_int,
    wait: unsafe extern "C" fn(*mut Session, usize, u32, *mut c_int, Text) -> c_int,
    close: unsafe extern "C" fn(*mut Session),
}

impl Functions {
    /// Those of the library, which stays open: XRT has objects that live as long as the process.
    fn get() -> Result<&'static Self, XrtError> {
        static FUNCTIONS: OnceLock<Functions> = OnceLock::new();
        // Not `get_or_init`: what fails today may be installed tomorrow.
        if let Some(functions) = FUNCTIONS.get() {
            return Ok(functions);
        }
        let opened = Self::open().map_err(|text| XrtError { call: "open XRT", text })?;
        Ok(FUNCTIONS.get_or_init(|| opened))
    }

    fn open() -> Result<Self, String> {
        let file = memfd_create(c"attn-xrt-shim", MFdFlags::MFD_CLOEXEC).map_err(|error| error.to_string())?;
        let mut file = std::fs::File::from(file);
        file.write_all(LIBRARY).map_err(|error| error.to_string())?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        // SAFETY: a library of ours; what it loads is XRT, whose start-up code is that of any program that uses it.
        let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.map_err(|error| error.to_string())?;
        // SAFETY: the types are those of shim/xrt_shim.cc.
        let functions = unsafe {
            Self {
                open: symbol(&library, c"attn_xrt_open")?,
                load: symbol(&library, c"attn_xrt_load")?,
                buffer: symbol(&library, c"attn_xrt_buffer")?,
                sync: symbol(&library, c"attn_xrt_sync")?,
                run: symbol(&library, c"attn_xrt_run")?,
                start: symbol(&library, c"attn_xrt_start")?,
                wait: symbol(&library, c"attn_xrt_wait")?,
                close: symbol(&library, c"attn_xrt_close")?,
            }
        };
        // The file, too: another one of its name would be taken for this library.
        std::mem::forget((library, file));
        super::end_at_once();
        Ok(functions)
    }
}

/// # Safety
/// `F` is the type of the function of this name.
unsafe fn symbol<F: Copy>(library: &Library, name: &CStr) -> Result<F, String> {
    // SAFETY: as promised.
    let symbol = unsafe { library.get::<F>(name.to_bytes_with_nul()) };
    symbol.map(|symbol| *symbol).map_err(|error| error.to_string())
}

/// Opens the library, if it is not open.
pub(super) fn open_xrt() -> Result<(), XrtError> {
    Functions::get().map(|_| ())
}

/// A device, opened through the shim.
pub(super) struct Shim {
    functions: &'static Functions,
    session: NonNull<Session>,
    buffers: usize,
    runs: usize,
    is_kept_open: bool,
}

// SAFETY: XRT's objects belong to no thread, and a session's are used by one at a time.
unsafe impl Send for Shim {}

impl Shim {
    pub(super) fn open(device: u32) -> Result<Self, XrtError> {
        let functions = Functions::get()?;
        let mut session = ptr::null_mut();
        // SAFETY: it writes a session where it succeeds.
        call("open the device", |text| unsafe { (functions.open)(device, &raw mut session, text) })?;
        let session = NonNull::new(session).expect("a session, as it succeeded");
        Ok(Self { functions, session, buffers: 0, runs: 0, is_kept_open: false })
    }
}

impl Xrt for Shim {
    fn load(&mut self, xclbin: &[u8], kernel: &str) -> Result<(), XrtError> {
        let kernel = CString::new(kernel).expect("a name");
        let Self { functions, session, .. } = self;
        // SAFETY: bytes and their number, a session.
        call("load the xclbin", |text| unsafe {
            (functions.load)(session.as_ptr(), xclbin.as_ptr(), xclbin.len(), kernel.as_ptr(), text)
        })
        .map(|_| ())
    }

    fn buffer(&mut self, argument: u32, bytes: usize, kind: BufferKind) -> Result<Buffer, XrtError> {
        let mut map = ptr::null_mut();
        let Self { functions, session, .. } = self;
        // SAFETY: a session; it writes a pointer where it succeeds.
        call("allocate a buffer", |text| unsafe {
            let argument = argument as c_int;
            (functions.buffer)(session.as_ptr(), argument, bytes, kind == BufferKind::Instructions, &raw mut map, text)
        })?;
        let index = self.buffers;
        self.buffers += 1;
        let map = NonNull::new(map.cast()).expect("a mapping, as it succeeded");
        // SAFETY: a mapping of so many bytes, which lives as long as the session.
        Ok(unsafe { Buffer::new(index, map, bytes) })
    }

    fn sync(&mut self, buffer: &Buffer, bytes: usize, direction: Direction) -> Result<(), XrtError> {
        let Self { functions, session, .. } = self;
        // SAFETY: a session; it checks the numbers.
        call("synchronise a buffer", |text| unsafe {
            (functions.sync)(session.as_ptr(), buffer.index, bytes, direction == Direction::ToDevice, text)
        })
        .map(|_| ())
    }

    fn run(&mut self) -> Result<usize, XrtError> {
        let Self { functions, session, .. } = self;
        // SAFETY: a session.
        call("make a run", |text| unsafe { (functions.run)(session.as_ptr(), text) })?;
        self.runs += 1;
        Ok(self.runs - 1)
    }

    fn start(&mut self, run: usize, Arguments { instructions, words, data }: Arguments<'_>) -> Result<(), XrtError> {
        let data: Vec<usize> = data.iter().map(|buffer| buffer.index).collect();
        let Self { functions, session, .. } = self;
        // SAFETY: a session, and so many numbers, which it checks.
        call("start a run", |text| unsafe {
            (functions.start)(session.as_ptr(), run, instructions.index, words, data.as_ptr(), data.len(), text)
        })
        .map(|_| ())
    }

    fn wait(&mut self, run: usize, timeout: Duration) -> Result<RunState, XrtError> {
        // 0 would be for ever.
        let milliseconds = timeout.as_millis().clamp(1, u32::MAX.into()) as u32;
        let mut state = 0;
        let Self { functions, session, .. } = self;
        // SAFETY: a session; it checks the number, and writes a state.
        let said = call("wait for a run", |text| unsafe {
            (functions.wait)(session.as_ptr(), run, milliseconds, &raw mut state, text)
        })?;
        Ok(if state == 0 { RunState::Running } else { RunState::of(state, said) })
    }

    fn keep_open(&mut self) {
        self.is_kept_open = true;
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        if !self.is_kept_open {
            // SAFETY: a session, for the last time; its buffers are not used any more, and no run is under way.
            unsafe { (self.functions.close)(self.session.as_ptr()) }
        }
    }
}

/// Calls a function with room for what it says, which is an error's text or the function's result.
fn call(call: &'static str, function: impl FnOnce(Text) -> c_int) -> Result<String, XrtError> {
    let mut text: [c_char; 1024] = [0; 1024];
    let result = function(Text { text: text.as_mut_ptr(), bytes: text.len() });
    // SAFETY: it ended the text, or left it empty.
    let text = unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned();
    if result == 0 { Ok(text) } else { Err(XrtError { call, text }) }
}

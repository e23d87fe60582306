//! XRT's C interface, by the crate `xrt` (AGPL-3.0), with the one function that it lacks.
//!
//! The interface says that something failed, and writes why to XRT's log: that is a file of this process here, read when something
//! did.
#![allow(unsafe_code, reason = "functions in C")]

use std::{
    ffi::{CStr, CString, c_char, c_int, c_uchar, c_uint, c_void},
    fs::File,
    io::Read as _,
    os::fd::AsRawFd as _,
    ptr::NonNull,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use nix::sys::memfd::{MFdFlags, memfd_create};
use xrt::ffi;

use super::{Arguments, Buffer, BufferKind, DATA, Direction, INSTRUCTIONS, RunState, Xrt, XrtError};

unsafe extern "C" {
    fn attn_xrt_register(
        device: *mut c_void,
        xclbin: *const u8,
        bytes: usize,
        uuid: *mut c_uchar,
        text: *mut c_char,
        text_bytes: usize,
    ) -> c_int;
    /// Of `xrt/experimental/xrt_ini.h`.
    fn xrtIniStringSet(key: *const c_char, value: *const c_char) -> c_int;
}

/// Numbers of the kernel's other arguments.
const OPCODE: c_int = 0;
const WORDS: c_int = 2;

/// What is to be done: mlir-aie's kernels run instructions with this opcode.
const RUN_INSTRUCTIONS: u64 = 3;

/// XRT's log, which is set before XRT is first used: it has one for a process.
static LOG: Mutex<Option<File>> = Mutex::new(None);

/// Makes the log, if it is not made. Without it XRT's errors have no words.
pub(super) fn open_xrt() {
    super::end_at_once();
    let mut log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
    if log.is_some() {
        return;
    }
    let Ok(file) = memfd_create(c"attn-xrt-log", MFdFlags::MFD_CLOEXEC).map(File::from) else { return };
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).expect("a path");
    // SAFETY: two texts.
    if unsafe { xrtIniStringSet(c"Runtime.runtime_log".as_ptr(), path.as_ptr()) } == 0 {
        *log = Some(file);
    }
}

/// What was written to the log since this was last called.
fn said() -> String {
    let mut log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
    let mut text = Vec::new();
    if let Some(file) = log.as_mut() {
        // XRT writes through a descriptor of its own, so that this one is where reading ended.
        _ = file.read_to_end(&mut text);
    }
    let text = String::from_utf8_lossy(&text);
    let last = text.lines().filter_map(|line| line.split_once("ERROR: ").map(|(_, said)| said)).next_back();
    last.unwrap_or("XRT does not say why").to_owned()
}

fn failed(call: &'static str) -> XrtError {
    XrtError { call, text: said() }
}

/// A device, with what was made of it.
pub(super) struct Ffi {
    device: NonNull<c_void>,
    kernel: Option<NonNull<c_void>>,
    buffers: Vec<NonNull<c_void>>,
    runs: Vec<NonNull<c_void>>,
    is_kept_open: bool,
}

// SAFETY: XRT's objects belong to no thread, and a session's are used by one at a time.
unsafe impl Send for Ffi {}

impl Ffi {
    pub(super) fn open(number: u32) -> Result<Self, XrtError> {
        // SAFETY: a number.
        let device = NonNull::new(unsafe { ffi::xrtDeviceOpen(number) }).ok_or_else(|| failed("open the device"))?;
        Ok(Self { device, kernel: None, buffers: Vec::new(), runs: Vec::new(), is_kept_open: false })
    }

    fn kernel(&self) -> *mut c_void {
        self.kernel.expect("`load` comes first").as_ptr()
    }
}

impl Xrt for Ffi {
    fn load(&mut self, xclbin: &[u8], kernel: &str) -> Result<(), XrtError> {
        const CALL: &str = "load the xclbin";
        let mut uuid = [0; 16];
        let mut text: [c_char; 1024] = [0; 1024];
        // SAFETY: bytes and their number, room for a UUID, and for a text.
        let registered = unsafe {
            attn_xrt_register(
                ffi::xrtDeviceToXclDevice(self.device.as_ptr()),
                xclbin.as_ptr(),
                xclbin.len(),
                uuid.as_mut_ptr(),
                text.as_mut_ptr(),
                text.len(),
            )
        };
        if registered != 0 {
            // SAFETY: it ended the text.
            let text = unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned();
            return Err(XrtError { call: CALL, text });
        }
        let kernel = CString::new(kernel).expect("a name");
        // SAFETY: a device, a UUID, a name.
        let kernel = unsafe { ffi::xrtPLKernelOpen(self.device.as_ptr(), uuid.as_mut_ptr(), kernel.as_ptr()) };
        self.kernel = Some(NonNull::new(kernel).ok_or_else(|| failed(CALL))?);
        Ok(())
    }

    fn buffer(&mut self, argument: u32, bytes: usize, kind: BufferKind) -> Result<Buffer, XrtError> {
        const CALL: &str = "allocate a buffer";
        // XRT_BO_FLAGS_CACHEABLE and XRT_BO_FLAGS_HOST_ONLY of `xrt/detail/xrt_mem.h`.
        let flags = if kind == BufferKind::Instructions { 1 << 24 } else { 1 << 29 };
        // SAFETY: a kernel; it checks the number.
        let group = unsafe { ffi::xrtKernelArgGroupId(self.kernel(), argument as c_int) };
        let group = u32::try_from(group).map_err(|_| failed(CALL))?;
        // SAFETY: a device.
        let buffer = unsafe { ffi::xrtBOAlloc(self.device.as_ptr(), bytes, flags, group) };
        let buffer = NonNull::new(buffer).ok_or_else(|| failed(CALL))?;
        self.buffers.push(buffer);
        // SAFETY: a buffer.
        let map = NonNull::new(unsafe { ffi::xrtBOMap(buffer.as_ptr()) }).ok_or_else(|| failed(CALL))?;
        // SAFETY: a mapping of so many bytes, which lives as long as the buffer, and that as long as this.
        Ok(unsafe { Buffer::new(self.buffers.len() - 1, map.cast(), bytes) })
    }

    fn sync(&mut self, buffer: &Buffer, bytes: usize, direction: Direction) -> Result<(), XrtError> {
        // XCL_BO_SYNC_BO_TO_DEVICE and XCL_BO_SYNC_BO_FROM_DEVICE.
        let direction = u32::from(direction == Direction::FromDevice);
        let handle = self.buffers[buffer.index];
        // SAFETY: a buffer; it checks the bytes.
        let done = unsafe { ffi::xrtBOSync(handle.as_ptr(), direction, bytes, 0) };
        if done == 0 { Ok(()) } else { Err(failed("synchronise a buffer")) }
    }

    fn run(&mut self) -> Result<usize, XrtError> {
        // SAFETY: a kernel.
        let run = NonNull::new(unsafe { ffi::xrtRunOpen(self.kernel()) }).ok_or_else(|| failed("make a run"))?;
        self.runs.push(run);
        Ok(self.runs.len() - 1)
    }

    fn start(&mut self, run: usize, Arguments { instructions, words, data }: Arguments<'_>) -> Result<(), XrtError> {
        let run = self.runs[run].as_ptr();
        let handle = |buffer: &Buffer| self.buffers[buffer.index].as_ptr();
        // SAFETY: a run, and arguments of the types that the kernel has.
        let set = unsafe {
            ffi::xrtRunSetArg(run, OPCODE, RUN_INSTRUCTIONS)
                | ffi::xrtRunSetArg(run, INSTRUCTIONS as c_int, handle(instructions))
                | ffi::xrtRunSetArg(run, WORDS, words)
        };
        let set = (DATA as c_int..).zip(data).fold(set, |set, (argument, buffer)| {
            // SAFETY: as above.
            set | unsafe { ffi::xrtRunSetArg(run, argument, handle(buffer)) }
        });
        // SAFETY: a run.
        if set == 0 && unsafe { ffi::xrtRunStart(run) } == 0 { Ok(()) } else { Err(failed("start a run")) }
    }

    fn wait(&mut self, run: usize, timeout: Duration) -> Result<RunState, XrtError> {
        let run = self.runs[run].as_ptr();
        // 0 would be for ever.
        let milliseconds = timeout.as_millis().clamp(1, u32::MAX.into()) as c_uint;
        let start = Instant::now();
        // SAFETY: a run that was started. What it returns at the end of the time is one of the states of a command, so that it is
        // asked for its own.
        let state = unsafe {
            match ffi::xrtRunWaitFor(run, milliseconds) {
                ffi::ert_cmd_state_ERT_CMD_STATE_COMPLETED => ffi::ert_cmd_state_ERT_CMD_STATE_COMPLETED,
                _ => ffi::xrtRunState(run),
            }
        };
        match RunState::of(state as i32, String::new()) {
            RunState::Running if start.elapsed().as_millis() < u128::from(milliseconds) => {
                Err(failed("wait for a run"))
            }
            state => Ok(state),
        }
    }

    fn keep_open(&mut self) {
        self.is_kept_open = true;
    }
}

impl Drop for Ffi {
    fn drop(&mut self) {
        if self.is_kept_open {
            return;
        }
        // SAFETY: what was opened, for the last time, and before what it was opened with; no run is under way.
        unsafe {
            self.runs.iter().for_each(|run| _ = ffi::xrtRunClose(run.as_ptr()));
            self.buffers.iter().for_each(|buffer| _ = ffi::xrtBOFree(buffer.as_ptr()));
            self.kernel.iter().for_each(|kernel| _ = ffi::xrtKernelClose(kernel.as_ptr()));
            ffi::xrtDeviceClose(self.device.as_ptr());
        }
    }
}

//! Why there is no session, or no result: a sentence each, and what to do.

use std::{
    error::Error,
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use attn_fixed::AttentionError;

use super::xrt::{CommandState, XrtError};
use crate::{NpuError, UnsupportedMask, build::InstructionsError, host, xclbin::XclbinError};

/// Why there is no session, or no result.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum SessionError {
    /// This program cannot call XRT.
    NotBuiltIn,
    /// XRT is not installed, or not whole.
    NoXrt(XrtError),
    /// A file.
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        kind: io::ErrorKind,
        /// The system's words.
        error: String,
    },
    /// A container that is not whole.
    Xclbin {
        /// Which.
        path: PathBuf,
        /// Why.
        error: XclbinError,
    },
    /// Instructions that are not for the design.
    Instructions {
        /// Which.
        path: PathBuf,
        /// Why.
        error: InstructionsError,
    },
    /// A manifest that is none, or of another version.
    Manifest {
        /// Which.
        path: PathBuf,
        /// Why, with got and expected.
        error: String,
    },
    /// Files that are not what their manifest says.
    NotAsBuilt {
        /// The xclbin.
        path: PathBuf,
        /// What differs, with got and expected.
        difference: String,
    },
    /// There is no such device.
    NoDevice {
        /// The number asked for.
        device: u32,
        /// What is missing.
        why: NoDevice,
    },
    /// This user may not open it.
    Permission {
        /// What is opened.
        node: PathBuf,
        /// Who may.
        group: String,
    },
    /// The design is for another array.
    Device {
        /// What there is.
        got: String,
        /// What the design is for.
        expected: &'static str,
    },
    /// The process may not lock as much memory as the driver needs.
    Memlock {
        /// Bytes that it may lock.
        limit: u64,
        /// Bytes that are needed.
        needed: u64,
        /// What XRT said.
        error: XrtError,
    },
    /// There is no context left, or no columns.
    Contexts(XrtError),
    /// Memory of the device.
    Allocation {
        /// Bytes of the buffer.
        bytes: usize,
        /// What XRT said.
        error: XrtError,
    },
    /// XRT refused something else.
    Xrt(XrtError),
    /// A dispatch failed.
    Command {
        /// How it ended.
        state: CommandState,
        /// What XRT says of it, if it does.
        said: String,
    },
    /// A dispatch did not end in time.
    Hang {
        /// How long it was waited for.
        timeout: Duration,
    },
    /// The device's results are not those of the specification.
    WrongResult {
        /// Elements that differ.
        wrong: usize,
        /// Elements.
        of: usize,
        /// The first one that differs: which object, query and column.
        at: (usize, usize, usize),
        /// What it is.
        got: i8,
        /// What it should be.
        expected: i8,
    },
    /// The session ended with an earlier error.
    Closed,
    /// Dispatches are under way: two, or one where both sets of buffers are needed.
    Busy,
    /// A ticket of another session, or of a dispatch whose results were taken.
    Ticket,
    /// More than the design has room for.
    Room {
        /// Of what.
        what: &'static str,
        /// What was asked for.
        got: usize,
        /// The most that there can be.
        most: usize,
    },
    /// What is wrong with the tensors.
    Attention(AttentionError),
    /// A mask that the kernels do not take.
    Mask(UnsupportedMask),
}

/// Why there is no device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoDevice {
    /// No NPU is on the bus.
    Hardware,
    /// One is, without a driver.
    Driver(String),
    /// One is, with its driver, and not what is opened: a container lacks it.
    Node(PathBuf),
    /// One is, with its driver, and XRT does not see it: its plug-in is missing.
    Plugin(XrtError),
    /// One is, and XRT's plug-in does not take it.
    Refused(XrtError),
}

impl SessionError {
    /// What happened to a file.
    pub(super) fn file(path: &Path) -> impl Fn(io::Error) -> Self {
        move |error| Self::File { path: path.to_owned(), kind: error.kind(), error: error.to_string() }
    }
}

impl fmt::Display for SessionError {
    /// What is wrong, and in parentheses what to do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.cause())?;
        match self.fix() {
            Some(fix) => write!(f, " ({fix})"),
            None => Ok(()),
        }
    }
}

impl SessionError {
    /// What to do about a limit of locked memory.
    pub const MEMLOCK_FIX: &str = "`ulimit -l unlimited`; for good, a line `* - memlock unlimited` in /etc/security/limits.conf, then log in again";

    /// What is wrong.
    #[must_use]
    pub fn cause(&self) -> String {
        match self {
            Self::NotBuiltIn => "this program was built without XRT".to_owned(),
            Self::NoXrt(error) => format!("XRT is not installed, or not whole: {error}"),
            Self::File { path, error, .. } => format!("{}: {error}", path.display()),
            Self::Xclbin { path, error } => format!("{}: {error}", path.display()),
            Self::Instructions { path, error } => format!("{}: {error}", path.display()),
            Self::Manifest { path, error } => format!("{}: no manifest of this version: {error}", path.display()),
            Self::NotAsBuilt { path, difference } => format!("{}: not as built: {difference}", path.display()),
            Self::NoDevice { device, why } => match why {
                NoDevice::Hardware => format!("there is no NPU {device} on the PCI bus of this machine"),
                NoDevice::Driver(address) => format!("NPU {device} ({address}) has no driver `{}`", host::DRIVER),
                NoDevice::Node(node) => format!("NPU {device} has its driver, but {} is not here", node.display()),
                NoDevice::Refused(error) => {
                    format!("NPU {device} is there, and XRT's plug-in does not take it: {error}")
                }
                NoDevice::Plugin(error) => {
                    format!("NPU {device} has its driver, and XRT does not see it: its plug-in is missing: {error}")
                }
            },
            Self::Permission { node, .. } => format!("{}: permission denied", node.display()),
            Self::Device { got, expected } => format!("the xclbin was built for {expected}, the NPU is {got}"),
            Self::Memlock { limit, needed, error } => {
                let (limit, needed) = (limit / 1024, needed.div_ceil(1024));
                format!("this process may lock {limit} KiB of memory, and needs {needed} KiB: {error}")
            }
            Self::Contexts(error) => {
                format!("the driver gave no hardware context: none is free, or not so many columns: {error}")
            }
            Self::Allocation { bytes, error } => format!("no memory for a buffer of {bytes} bytes: {error}"),
            Self::Xrt(error) => format!("XRT: {error}"),
            Self::Command { state, said } => {
                let cause = match *state {
                    CommandState::ABORT | CommandState::TIMEOUT => {
                        "the driver gave the dispatch up: the design hangs, or firmware and driver do not fit each other"
                    }
                    _ => {
                        "the dispatch failed: the instructions are not those of the xclbin, or the firmware refused them"
                    }
                };
                let said = said.trim_end();
                format!("{cause}: {state}{}{said}", if said.is_empty() { "" } else { ": " })
            }
            Self::Hang { timeout } => format!(
                "the dispatch did not end within {} s: the design hangs, or firmware and driver do not fit each other",
                timeout.as_secs_f64()
            ),
            Self::WrongResult { wrong, of, at: (object, query, column), got, expected } => format!(
                "the NPU computes wrong results: {wrong} of {of} elements of the self-test differ, the first one in object \
                 {object}, query {query}, column {column}: got {got}, expected {expected}"
            ),
            Self::Closed => "the session ended with an earlier error".to_owned(),
            Self::Busy => "dispatches are under way that were not waited for".to_owned(),
            Self::Ticket => "the ticket is another session's, or its results were taken".to_owned(),
            Self::Room { what, got, most } => {
                format!("{what}: got {got}, expected at most {most}, which is what the xclbin was built for")
            }
            Self::Attention(error) => error.to_string(),
            Self::Mask(error) => error.to_string(),
        }
    }

    /// What to do, where there is something.
    #[must_use]
    pub fn fix(&self) -> Option<String> {
        const BUILD: &str = "`attn npu build` makes an xclbin, its instructions and its manifest";
        const VERSIONS: &str = "look at `sudo dmesg | grep amdxdna`, and at the versions that `attn doctor` lists";
        Some(match self {
            Self::NotBuiltIn => {
                "install XRT's headers, on Debian `apt-get install libxrt-dev`, and build with `--features \
                                 xrt-shim`"
                    .to_owned()
            }
            Self::NoXrt(_) => "on Debian: `apt-get install libxrt2 libxrt-npu2`".to_owned(),
            Self::File { kind: io::ErrorKind::NotFound, .. }
            | Self::Xclbin { .. }
            | Self::Instructions { .. }
            | Self::Manifest { .. }
            | Self::NotAsBuilt { .. } => BUILD.to_owned(),
            Self::NoDevice { why, .. } => match why {
                NoDevice::Hardware => "`lspci -d 1022:` lists what there is".to_owned(),
                NoDevice::Driver(_) => {
                    format!("Linux 6.14 or later has it: `sudo modprobe {}`, and look at `sudo dmesg`", host::DRIVER)
                }
                NoDevice::Node(_) => "a container is given it with `--device /dev/accel/accel0`".to_owned(),
                NoDevice::Plugin(_) => "on Debian: `apt-get install libxrt-npu2`".to_owned(),
                NoDevice::Refused(_) => {
                    "its driver or firmware may not fit the plug-in: `attn doctor` lists the versions".to_owned()
                }
            },
            Self::Permission { group, .. } => return host::Refused::Permission(group.clone()).fix(),
            Self::Device { got, .. } => format!("build for it: `attn npu build --device {got}`"),
            Self::Memlock { .. } => Self::MEMLOCK_FIX.to_owned(),
            Self::Contexts(_) => {
                "end other programs that use the NPU (`xrt-smi examine -r aie-partitions` lists them), or \
                                  build a design of fewer columns"
                    .to_owned()
            }
            Self::Allocation { .. } => "end other programs, or build a smaller design".to_owned(),
            Self::Command { state: CommandState::ABORT | CommandState::TIMEOUT, .. } | Self::Hang { .. } => {
                VERSIONS.to_owned()
            }
            Self::Command { .. } => "`attn npu inspect` compares them; `sudo dmesg | grep amdxdna` may say more".to_owned(),
            Self::WrongResult { .. } => {
                "the instructions may be another design's (`attn npu inspect`); and others had wrong products with Peano 21 \
                 and 22 (mlir-aie issue 3778): build with another version"
                    .to_owned()
            }
            Self::Closed => "open another one".to_owned(),
            Self::Busy => "wait for them first".to_owned(),
            Self::File { .. }
            | Self::Xrt(_)
            | Self::Ticket
            | Self::Room { .. }
            | Self::Attention(_)
            | Self::Mask(_) => return None,
        })
    }
}

impl Error for SessionError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            // It is printed itself, as all the others are.
            Self::Attention(error) => error.source(),
            _ => None,
        }
    }
}

impl From<NpuError> for SessionError {
    fn from(error: NpuError) -> Self {
        match error {
            NpuError::Attention(error) => Self::Attention(error),
            NpuError::Mask(error) => Self::Mask(error),
        }
    }
}

impl From<AttentionError> for SessionError {
    fn from(error: AttentionError) -> Self {
        Self::Attention(error)
    }
}

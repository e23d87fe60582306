//! What this machine has for an NPU, as the kernel says it: nothing here calls XRT.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use crate::design::Device;

/// Where the kernel lists PCI devices.
const PCI_DEVICES: &str = "/sys/bus/pci/devices";

/// Bytes that the driver keeps locked for a context, whatever it computes.
pub const CONTEXT_BYTES: u64 = 64 << 20;

/// An NPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Npu {
    /// Its address on the bus: `0000:c6:00.1`.
    pub address: String,
    /// Vendor's number of the device: 0x1502.
    pub id: u32,
    /// What the driver calls it: `NPU Phoenix`; none without a driver.
    pub name: Option<String>,
    /// The driver: `amdxdna`; none if none took it.
    pub driver: Option<String>,
    /// The firmware's version, as the driver says it.
    pub firmware: Option<String>,
    /// What programs open: `/dev/accel/accel0`; none without a driver.
    pub node: Option<PathBuf>,
    /// Whether an IOMMU translates its addresses.
    pub has_iommu: bool,
}

impl Npu {
    /// The array that it has, if designs are made for it.
    #[must_use]
    pub const fn device(&self) -> Option<Device> {
        match self.id {
            0x1502 => Some(Device::Npu1),
            0x17f0 => Some(Device::Npu2),
            _ => None,
        }
    }
}

/// The NPUs of this machine, in the order of their addresses.
///
/// # Errors
/// A list of devices that cannot be read.
pub fn npus() -> io::Result<Vec<Npu>> {
    const AMD: u32 = 0x1022;
    let mut npus = Vec::new();
    for entry in fs::read_dir(PCI_DEVICES)? {
        let path = entry?.path();
        if number(&path.join("vendor")) != Some(AMD) {
            continue;
        }
        let Some(id) = number(&path.join("device")) else { continue };
        let node = fs::read_dir(path.join("accel")).ok().and_then(|mut nodes| nodes.next()?.ok());
        // Those that designs are made for, and those that the driver knows.
        let is_npu = matches!(id, 0x1502 | 0x17f0) || driver(&path).as_deref() == Some(DRIVER);
        if !is_npu {
            continue;
        }
        npus.push(Npu {
            address: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            id,
            name: text(&path.join("vbnv")),
            driver: driver(&path),
            firmware: text(&path.join("fw_version")),
            node: node.map(|node| Path::new("/dev/accel").join(node.file_name())),
            has_iommu: path.join("iommu_group").exists(),
        });
    }
    npus.sort_by(|a, b| a.address.cmp(&b.address));
    Ok(npus)
}

/// The driver's name.
pub const DRIVER: &str = "amdxdna";

fn driver(device: &Path) -> Option<String> {
    let link = fs::read_link(device.join("driver")).ok()?;
    Some(link.file_name()?.to_string_lossy().into_owned())
}

/// The driver's version: its own, or that of the kernel that it came with. None if it is not loaded.
#[must_use]
pub fn driver_version() -> Option<String> {
    let module = Path::new("/sys/module").join(DRIVER);
    if !module.exists() {
        return None;
    }
    text(&module.join("version")).or_else(|| Some(format!("of Linux {}", kernel_version()?)))
}

/// The version of the kernel.
#[must_use]
pub fn kernel_version() -> Option<String> {
    text(Path::new("/proc/sys/kernel/osrelease"))
}

/// Why a device node cannot be opened.
#[derive(Debug)]
pub enum Refused {
    /// It is not there.
    Missing,
    /// This user may not; those of this group may.
    Permission(String),
    /// Something else.
    Other(io::Error),
}

impl Refused {
    /// What to do.
    #[must_use]
    pub fn fix(&self) -> Option<String> {
        match self {
            Self::Permission(group) => {
                Some(format!("join the group `{group}`: `sudo usermod -aG {group} $USER`, then log in again"))
            }
            Self::Missing => Some(format!("`sudo modprobe {DRIVER}`, and look at `sudo dmesg`")),
            Self::Other(_) => None,
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("it is not there"),
            Self::Permission(_) => f.write_str("permission denied"),
            Self::Other(error) => error.fmt(f),
        }
    }
}

/// Opens a device node for reading and writing, and closes it.
///
/// # Errors
/// Why it cannot be opened.
pub fn try_open(node: &Path) -> Result<(), Refused> {
    match fs::OpenOptions::new().read(true).write(true).open(node) {
        Ok(_) => Ok(()),
        Err(error) => Err(match error.kind() {
            io::ErrorKind::NotFound => Refused::Missing,
            io::ErrorKind::PermissionDenied => Refused::Permission(group_of(node)),
            _ => Refused::Other(error),
        }),
    }
}

/// The name of the group that a file belongs to, or its number; that of Linux's distributions where it cannot be seen or is root's,
/// which nobody should join.
fn group_of(file: &Path) -> String {
    #[cfg(unix)]
    let group = fs::metadata(file).map(|metadata| std::os::unix::fs::MetadataExt::gid(&metadata)).ok();
    #[cfg(not(unix))]
    let group: Option<u32> = {
        _ = file;
        None
    };
    match group {
        None | Some(0) => "render".to_owned(),
        Some(number) => name_of_group(number).unwrap_or_else(|| number.to_string()),
    }
}

fn name_of_group(number: u32) -> Option<String> {
    let groups = fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, id) = (fields.next()?, fields.next()?, fields.next()?);
        (id.parse() == Ok(number)).then(|| name.to_owned())
    })
}

/// Bytes that this process may lock; none if there is no limit, or it cannot be seen.
#[must_use]
pub fn memlock_limit() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Bytes that this process has locked.
#[must_use]
pub fn locked_memory() -> u64 {
    let locked = || {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmLck:"))?;
        Some(1024 * line.split_whitespace().next()?.parse::<u64>().ok()?)
    };
    locked().unwrap_or(0)
}

/// Whether no limit of locked memory holds for this process, as for root's.
#[must_use]
pub fn may_lock_all() -> bool {
    const IPC_LOCK: u32 = 14;
    let capabilities = || {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    capabilities().is_some_and(|capabilities| capabilities >> IPC_LOCK & 1 == 1)
}

/// The version of a library that this process has loaded, by its file's name: `libxrt_coreutil.so.2.25.00`.
#[must_use]
pub fn version_of_library(name: &str) -> Option<String> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let path = maps.lines().filter_map(|line| line.split_whitespace().nth(5)).find(|path| {
        let file = path.rsplit('/').next().unwrap_or_default();
        file.strip_prefix(name).is_some_and(|rest| rest.starts_with(".so"))
    })?;
    let file = fs::canonicalize(path).ok()?;
    let file = file.file_name()?.to_str()?;
    file.split_once(".so.").map(|(_, version)| version.to_owned())
}

fn number(path: &Path) -> Option<u32> {
    let text = text(path)?;
    u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

/// A file of the kernel's, without the end of its line.
fn text(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

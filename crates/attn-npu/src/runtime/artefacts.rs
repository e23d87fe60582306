//! What `attn npu build` left: read, and compared with what it says of itself, before any of it is given to the device.

use std::path::{Path, PathBuf};

use super::{SessionError, objects::Objects, plan::Room};
use crate::{
    build::{self, Instructions, KERNEL, Manifest},
    design::Design,
    layout::ABI,
    xclbin::{Uuid, Xclbin},
};

/// An xclbin, with what lies beside it.
#[derive(Clone, Debug)]
pub struct Artefacts {
    /// Where the xclbin is.
    pub path: PathBuf,
    /// Its bytes.
    pub xclbin: Vec<u8>,
    /// What the driver knows it by.
    pub uuid: Uuid,
    /// What a dispatch runs.
    pub instructions: Vec<u8>,
    /// The program of the array.
    pub design: Design,
}

impl Artefacts {
    /// `NAME.xclbin`, and `NAME.insts.bin` and `NAME.json` beside it: what is read of an xclbin.
    #[must_use]
    pub fn files(xclbin: &Path) -> [PathBuf; 3] {
        [xclbin.to_owned(), xclbin.with_extension("insts.bin"), xclbin.with_extension("json")]
    }

    /// Reads `NAME.xclbin`, and `NAME.insts.bin` and `NAME.json` beside it.
    ///
    /// # Errors
    /// A file that is not there, not whole or not what the manifest says; a manifest of another version of objects or arithmetic, or of
    /// a design that the hardware cannot do.
    pub fn read(xclbin: &Path) -> Result<Self, SessionError> {
        let [_, instructions_path, path] = Self::files(xclbin);
        let bytes = read(xclbin)?;
        let container =
            Xclbin::parse(&bytes).map_err(|error| SessionError::Xclbin { path: xclbin.to_owned(), error })?;
        let instructions = read(&instructions_path)?;
        let wrong = |error: String| SessionError::Manifest { path: path.clone(), error };
        let manifest = Manifest::from_json(&read(&path)?).map_err(|error| wrong(error.to_string()))?;
        for (what, got, expected) in [
            ("version of the objects (abi)", i64::from(manifest.abi), i64::from(ABI)),
            ("version of the arithmetic", manifest.arithmetic.into(), attn_fixed::ARITHMETIC.into()),
        ] {
            if got != expected {
                return Err(wrong(format!("{what}: got {got}, expected {expected}")));
            }
        }
        let design = manifest.design().map_err(wrong)?;
        let differences = manifest.differences(&bytes, Some(&instructions));
        let differences = differences.map_err(|error| SessionError::Xclbin { path: xclbin.to_owned(), error })?;
        if let Some(difference) = differences.into_iter().next() {
            return Err(SessionError::NotAsBuilt { path: xclbin.to_owned(), difference });
        }
        let checked = Instructions::parse(&instructions).and_then(|header| header.check(&design));
        let wrong = |error| SessionError::Instructions { path: instructions_path.clone(), error };
        checked.map_err(wrong)?;
        // What the device writes behind the end of a buffer is some other memory of this process.
        let reach = Instructions::reach(&instructions).map_err(wrong)?;
        let buffers = Objects::new(Room::of(&design), design.dim).bytes();
        if !reach.iter().copied().eq(buffers.iter().map(|&bytes| bytes as u64)) {
            let difference = format!("bytes that the instructions move: got {reach:?}, expected {buffers:?}");
            return Err(SessionError::NotAsBuilt { path: xclbin.to_owned(), difference });
        }
        if !container.kernels.iter().any(|kernel| kernel.name == KERNEL) {
            let names: Vec<_> = container.kernels.into_iter().map(|kernel| kernel.name).collect();
            let difference = format!("kernel: got {}, expected {KERNEL}", names.join(", "));
            return Err(SessionError::NotAsBuilt { path: xclbin.to_owned(), difference });
        }
        Ok(Self { path: xclbin.to_owned(), xclbin: bytes, uuid: container.uuid, instructions, design })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, SessionError> {
    build::read(path).map_err(SessionError::file(path))
}

//! From a design to what the device loads: an xclbin, its instructions, and a manifest that says what they were made of.
//!
//! The steps are those of mlir-aie: the kernel is compiled with Peano, the design with `aiecc`, which links every core with
//! the kernel. Nothing is left half-written: products are made in a folder beside their places, and moved when all of them are
//! there.

mod error;
mod instructions;
mod manifest;
mod toolchain;

pub use error::BuildError;
pub use instructions::{Instructions, InstructionsError};
pub use manifest::{Manifest, Product};
pub use toolchain::{LOCK, Pinned, Toolchain};

use std::{
    fmt, fs,
    io::{self, Read as _},
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

use crate::{design::Design, xclbin::Xclbin};

/// The kernel's sources, which an installed library has with it: path below `kernels/`, and text.
const SOURCES: [(&str, &str); 4] = [
    ("attention_constants.h", include_str!("../../kernels/attention_constants.h")),
    ("attention_row.h", include_str!("../../kernels/attention_row.h")),
    ("attention_tile.h", include_str!("../../kernels/attention_tile.h")),
    ("aie2/attention_tile.cc", include_str!("../../kernels/aie2/attention_tile.cc")),
];

/// Far more than a design of the whole array takes.
const MOST_BYTES: u64 = 256 << 20;

/// Reads a product. A pipe, which could keep this waiting, or a device, which may have no end, is none.
///
/// # Errors
/// What the system says; something else than a file; more than 256 MiB.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let refuse = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    if !fs::metadata(path)?.is_file() {
        return refuse("is a folder, a pipe or a device, expected a file".to_owned());
    }
    let file = fs::File::open(path)?;
    let length = file.metadata()?.len();
    if length > MOST_BYTES {
        return refuse(format!("got {length} bytes, expected at most {MOST_BYTES}"));
    }
    let mut bytes = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What to build, and where.
#[derive(Clone, Debug)]
pub struct Build {
    /// Names the products: `attn-NAME.xclbin`, `attn-NAME.insts.bin`, `attn-NAME.json`.
    pub name: String,
    /// The program of the array.
    pub design: Design,
    /// Where the products go; it is made if it is not there.
    pub out: PathBuf,
}

/// How a build ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The products are new.
    Built,
    /// Sources, design, tools and products are those of the manifest.
    UpToDate,
}

/// One step of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The kernel and the design are written into the work folder.
    Write,
    /// The kernel is compiled.
    Compile(Vec<String>),
    /// The design is compiled, and linked with the kernel.
    Assemble(Vec<String>),
    /// The products are read back.
    Check,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write => write!(f, "write the kernel's sources and the design, {DESIGN}, into a work folder"),
            Self::Compile(command) => write!(f, "compile the kernel: {}", command.join(" ")),
            Self::Assemble(command) => write!(f, "compile the design: {}", command.join(" ")),
            Self::Check => f.write_str("check the products"),
        }
    }
}

/// Names of the work folder's files.
const DESIGN: &str = "design.mlir";
const OBJECT: &str = "attention_tile.o";
const XCLBIN: &str = "attn.xclbin";
const INSTRUCTIONS: &str = "insts.bin";
const MANIFEST: &str = "manifest.json";
const LOG: &str = "build.log";

/// What is moved to its place at the end, in this order, and the end of its name there.
const PRODUCTS: [(&str, &str); 3] = [(XCLBIN, "xclbin"), (INSTRUCTIONS, "insts.bin"), (MANIFEST, "json")];

/// What the driver runs.
pub(crate) const KERNEL: &str = "MLIR_AIE";

/// Lines of a tool's log that are shown.
const LOG_LINES: usize = 20;

impl Build {
    /// The steps, without running any.
    #[must_use]
    pub fn steps(&self, tools: &Toolchain) -> [Step; 4] {
        let text = |path: PathBuf| path.display().to_string();
        let compile = [
            text(tools.clang()),
            "-O2".to_owned(),
            "-std=c++20".to_owned(),
            format!("--target={}", self.design.device.target()),
            format!("-DATTN_KERNEL_DIM={}", self.design.dim),
            format!("-I{}", tools.headers.display()),
            "-c".to_owned(),
            "aie2/attention_tile.cc".to_owned(),
            "-o".to_owned(),
            OBJECT.to_owned(),
        ];
        // The default scheme can lay buffers over a large stack.
        let assemble = [
            text(tools.aiecc.clone()),
            "--no-xchesscc".to_owned(),
            "--no-xbridge".to_owned(),
            format!("--peano={}", tools.peano.display()),
            "--no-compile-host".to_owned(),
            "--alloc-scheme=basic-sequential".to_owned(),
            "--aie-generate-xclbin".to_owned(),
            format!("--xclbin-name={XCLBIN}"),
            "--aie-generate-npu-insts".to_owned(),
            format!("--npu-insts-name={INSTRUCTIONS}"),
            DESIGN.to_owned(),
        ];
        [Step::Write, Step::Compile(compile.into()), Step::Assemble(assemble.into()), Step::Check]
    }

    /// Builds, unless the manifest says that there is nothing to do. `progress` is called before each step, and may end it.
    ///
    /// # Errors
    /// A limit of the hardware that the design exceeds; a tool that fails or does not make what it should; a file that cannot
    /// be written; an interruption. The products are then what they were before.
    pub fn run(
        &self,
        tools: &Toolchain,
        progress: &mut dyn FnMut(&Step) -> ControlFlow<()>,
    ) -> Result<Outcome, BuildError> {
        let design = self.design.mlir()?;
        let manifest = Manifest::new(self, tools, &design);
        if manifest.is_up_to_date(self) {
            return Ok(Outcome::UpToDate);
        }
        fs::create_dir_all(&self.out).map_err(BuildError::file(&self.out))?;
        // Else some of the products would be in their places when this is found out.
        for place in PRODUCTS.map(|(_, suffix)| self.product(suffix)) {
            if place.is_dir() {
                return Err(BuildError::file(&place)(io::ErrorKind::IsADirectory.into()));
            }
        }
        // Beside the products, so that moving them is one step each. It goes away with what is in it, but for a failure's log.
        let work = tempfile::Builder::new().prefix(".attn-build-").tempdir_in(&self.out);
        let work = work.map_err(BuildError::file(&self.out))?;
        for step in self.steps(tools) {
            if progress(&step).is_break() {
                return Err(BuildError::Interrupted);
            }
            match &step {
                Step::Write => write_sources(work.path(), &design)?,
                Step::Compile(command) => self.tool(work.path(), command, &[OBJECT])?,
                Step::Assemble(command) => self.tool(work.path(), command, &[XCLBIN, INSTRUCTIONS])?,
                Step::Check => self.check(work.path())?,
            }
        }
        self.publish(work.path(), manifest)?;
        // Of a failure before this.
        let _ = fs::remove_file(self.product(LOG));
        Ok(Outcome::Built)
    }

    /// Runs a tool in the work folder, which must then have these files: it can end well without having made them.
    fn tool(&self, work: &Path, command: &[String], products: &[&str]) -> Result<(), BuildError> {
        let (program, arguments) = command.split_first().expect("a program");
        let output = Command::new(program).args(arguments).current_dir(work).output();
        let output = output.map_err(BuildError::file(Path::new(program)))?;
        if is_interrupted(output.status) {
            return Err(BuildError::Interrupted);
        }
        let is_missing = |product: &&&str| !fs::metadata(work.join(product)).is_ok_and(|file| file.len() > 0);
        let failure = match products.iter().find(is_missing) {
            _ if !output.status.success() => output.status.to_string(),
            Some(product) => format!("ended well, but made no {product}"),
            None => return Ok(()),
        };
        // The work folder goes away; the log stays.
        let log = [output.stdout, output.stderr].concat();
        let path = self.product(LOG);
        fs::write(&path, &log).map_err(BuildError::file(&path))?;
        let text = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
        Err(BuildError::Tool { tool: name_of(program), failure, log: path, tail })
    }

    /// Both products are whole, and for this design.
    fn check(&self, work: &Path) -> Result<(), BuildError> {
        let read = |name| {
            let path = work.join(name);
            fs::read(&path).map_err(BuildError::file(&path))
        };
        Instructions::parse(&read(INSTRUCTIONS)?)?.check(&self.design)?;
        let xclbin = Xclbin::parse(&read(XCLBIN)?)?;
        if !xclbin.kernels.iter().any(|kernel| kernel.name == KERNEL) {
            let names: Vec<_> = xclbin.kernels.iter().map(|kernel| kernel.name.as_str()).collect();
            let got = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Err(BuildError::Mismatch { what: "kernel", got, expected: KERNEL.to_owned() });
        }
        let columns = xclbin.partition.map_or(0, |partition| usize::from(partition.column_width));
        if columns != self.design.columns {
            let (got, expected) = (columns.to_string(), self.design.columns.to_string());
            return Err(BuildError::Mismatch { what: "columns of the partition", got, expected });
        }
        Ok(())
    }

    /// Moves the products to their places, the manifest last: with it they are valid.
    fn publish(&self, work: &Path, mut manifest: Manifest) -> Result<(), BuildError> {
        for (from, suffix) in [(XCLBIN, "xclbin"), (INSTRUCTIONS, "insts.bin")] {
            let from = work.join(from);
            manifest.add_product(suffix, &fs::read(&from).map_err(BuildError::file(&from))?);
        }
        let json = work.join(MANIFEST);
        fs::write(&json, manifest.to_json()).map_err(BuildError::file(&json))?;
        // An old manifest does not describe the new products.
        let last = self.product("json");
        match fs::remove_file(&last) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(BuildError::file(&last)(error)),
            _ => {}
        }
        for (from, suffix) in PRODUCTS {
            let to = self.product(suffix);
            fs::rename(work.join(from), &to).map_err(BuildError::file(&to))?;
        }
        Ok(())
    }

    /// Where a product goes.
    #[must_use]
    pub fn product(&self, suffix: &str) -> PathBuf {
        self.out.join(format!("attn-{}.{suffix}", self.name))
    }
}

fn write_sources(work: &Path, design: &str) -> Result<(), BuildError> {
    for (name, text) in SOURCES.into_iter().chain([(DESIGN, design)]) {
        let path = work.join(name);
        let folder = path.parent().unwrap_or(work);
        fs::create_dir_all(folder).map_err(BuildError::file(folder))?;
        fs::write(&path, text).map_err(BuildError::file(&path))?;
    }
    Ok(())
}

/// Whether a signal that asks to end reached a tool, as Ctrl-C does all of a terminal's.
#[cfg(unix)]
fn is_interrupted(status: ExitStatus) -> bool {
    const HUP: i32 = 1;
    const INT: i32 = 2;
    const TERM: i32 = 15;
    matches!(std::os::unix::process::ExitStatusExt::signal(&status), Some(HUP | INT | TERM))
}

#[cfg(not(unix))]
fn is_interrupted(_: ExitStatus) -> bool {
    false
}

fn name_of(program: &str) -> String {
    Path::new(program).file_name().map_or_else(|| program.to_owned(), |name| name.to_string_lossy().into_owned())
}

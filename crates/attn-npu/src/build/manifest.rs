//! What products were made of.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Build, Instructions, SOURCES, Step, Toolchain, read};
use crate::{
    design::{Design, Device, Form},
    layout::ABI,
    xclbin::{Xclbin, XclbinError},
};

/// What lies beside the products, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// `npu1` or `npu2`.
    pub device: String,
    /// The part of it: `npu1_1col`.
    pub partition: String,
    /// The design's numbers, by name.
    pub design: BTreeMap<String, usize>,
    /// Version of the objects: [`ABI`].
    pub abi: i32,
    /// Version of the arithmetic: [`attn_fixed::ARITHMETIC`].
    pub arithmetic: u32,
    /// What the tools say of their versions.
    pub tools: BTreeMap<String, String>,
    /// What the tools are told, but for where things are.
    pub flags: BTreeMap<String, String>,
    /// SHA-256 of the sources, in hexadecimal, by path below `kernels/`; `design.mlir` among them.
    pub sources: BTreeMap<String, String>,
    /// The products, by the end of their names.
    pub products: BTreeMap<String, Product>,
}

/// A file that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Product {
    /// SHA-256, in hexadecimal.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
}

impl Manifest {
    /// Of products that are still to be made.
    pub(super) fn new(build: &Build, tools: &Toolchain, text: &str) -> Self {
        let design = &build.design;
        let mut numbers =
            vec![("columns", design.columns), ("rows", design.rows), ("dim", design.dim), ("depth", design.depth)];
        match design.form {
            Form::Tiles { per_core } => numbers.push(("tiles", per_core)),
            Form::Sequence { heads, queries, keys } => {
                numbers.extend([("heads", heads), ("queries", queries), ("keys", keys)]);
            }
        }
        let sources = SOURCES.into_iter().chain([("design.mlir", text)]);
        Self {
            device: design.device.name().to_owned(),
            partition: design.partition(),
            design: numbers.into_iter().map(|(name, number)| (name.to_owned(), number)).collect(),
            abi: ABI,
            arithmetic: attn_fixed::ARITHMETIC,
            tools: [
                ("llvm-aie", &tools.peano_version),
                ("mlir-aie", &tools.aiecc_version),
                ("xclbinutil", &tools.xclbinutil_version),
            ]
            .map(|(tool, version)| (tool.to_owned(), version.clone()))
            .into(),
            flags: build
                .steps(tools)
                .into_iter()
                .filter_map(|step| match step {
                    Step::Compile(command) => Some(("llvm-aie".to_owned(), flags(&command))),
                    Step::Assemble(command) => Some(("mlir-aie".to_owned(), flags(&command))),
                    Step::Write | Step::Check => None,
                })
                .collect(),
            sources: sources.map(|(path, text)| (path.to_owned(), sha256(text.as_bytes()))).collect(),
            products: BTreeMap::new(),
        }
    }

    pub(super) fn add_product(&mut self, suffix: &str, content: &[u8]) {
        self.products.insert(suffix.to_owned(), Product::of(content));
    }

    /// Whether the manifest beside the products is this one, and they are what it says.
    pub(super) fn is_up_to_date(&self, build: &Build) -> bool {
        let Ok(text) = read(&build.product("json")) else { return false };
        let Ok(found) = Self::from_json(&text) else { return false };
        let same = Self { products: found.products.clone(), ..self.clone() } == found;
        let is_there = |suffix: &str| {
            let content = read(&build.product(suffix)).ok();
            content.is_some_and(|content| found.products.get(suffix) == Some(&Product::of(&content)))
        };
        same && is_there("xclbin") && is_there("insts.bin")
    }

    /// What of an xclbin and of the instructions beside it is not as it says, with got and expected: none if they are what was
    /// built.
    ///
    /// # Errors
    /// A file that is no xclbin.
    pub fn differences(&self, xclbin: &[u8], instructions: Option<&[u8]>) -> Result<Vec<String>, XclbinError> {
        let mut differences = Vec::new();
        let mut compare = |what: &str, got: String, expected: String| {
            if got != expected {
                differences.push(format!("{what}: got {got}, expected {expected}"));
            }
        };
        let nothing = || "none".to_owned();
        for (suffix, content) in [("xclbin", Some(xclbin)), ("insts.bin", instructions)] {
            let got = content.map(|content| Product::of(content).to_string());
            let expected = self.products.get(suffix).map(Product::to_string);
            compare(suffix, got.unwrap_or_else(nothing), expected.unwrap_or_else(nothing));
        }
        let columns = Xclbin::parse(xclbin)?.partition.map(|partition| partition.column_width.to_string());
        let expected = self.design.get("columns").map(usize::to_string);
        compare("columns", columns.unwrap_or_else(nothing), expected.unwrap_or_else(nothing));
        if let Some(Ok(header)) = instructions.map(Instructions::parse) {
            compare("device", header.device().unwrap_or("unknown").to_owned(), self.device.clone());
        }
        Ok(differences)
    }

    /// The design that it names, within the limits of the hardware.
    ///
    /// # Errors
    /// A device or numbers that are no design's, with got and expected.
    pub fn design(&self) -> Result<Design, String> {
        let device = Device::ALL.into_iter().find(|device| device.name() == self.device);
        let device = device.ok_or_else(|| format!("device: got `{}`, expected npu1 or npu2", self.device))?;
        let number = |name: &str| self.design.get(name).copied().ok_or_else(|| format!("design: it has no `{name}`"));
        let form = match self.design.get("tiles") {
            Some(&per_core) => Form::Tiles { per_core },
            None => Form::Sequence { heads: number("heads")?, queries: number("queries")?, keys: number("keys")? },
        };
        let (columns, rows, dim, depth) = (number("columns")?, number("rows")?, number("dim")?, number("depth")?);
        let design = Design { device, columns, rows, dim, depth, form };
        design.check().map_err(|error| format!("design: {error}"))?;
        Ok(design)
    }

    /// Reads one.
    ///
    /// # Errors
    /// Text that is none.
    pub fn from_json(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }

    /// Writes it.
    ///
    /// # Panics
    /// Never: all of it can be written.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("strings and numbers") + "\n"
    }
}

impl Product {
    fn of(content: &[u8]) -> Self {
        Self { sha256: sha256(content), bytes: content.len() as u64 }
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of SHA-256 {}", self.bytes, self.sha256)
    }
}

/// The arguments of a command that name nothing outside of the work folder.
fn flags(command: &[String]) -> String {
    let is_outside = |argument: &str| argument.starts_with("-I") || argument.starts_with("--peano=");
    let flags = command.iter().skip(1).map(String::as_str).filter(|argument| !is_outside(argument));
    flags.collect::<Vec<_>>().join(" ")
}

fn sha256(content: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or('?');
    Sha256::digest(content).iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

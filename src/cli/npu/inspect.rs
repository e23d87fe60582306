use std::{
    error::Error,
    fmt,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use attn_npu::{
    build::{self, Manifest},
    runtime::Artefacts,
    xclbin::{Kernel, Partition, Xclbin},
};
use clap::Args;
use serde::Serialize;

use crate::cli::printable;

/// Print what an xclbin holds: UUID, platform, sections, kernels and their arguments, columns, and the sizes of its PDIs.
///
/// If a manifest of `attn npu build` is beside it, FILE.json, the file and its instructions, FILE.insts.bin, are compared with
/// what that says was built.
///
/// Exit status: 0 if the file was read, 1 if it is not as the manifest says, 2 for a usage error or a file that is not a whole
/// xclbin.
#[derive(Args)]
#[command(after_help = "\
Examples:
  attn npu inspect attn.xclbin
  attn npu inspect attn.xclbin --json | python3 -c 'import json, sys; print(json.load(sys.stdin)[\"uuid\"])'

JSON: length (bytes), uuid, time (seconds since 1970), version (of the XRT that wrote it), mode, platform,
sections [{kind, name, offset, size}], kernels [{name, type, dpu_kernel_id, instances,
arguments [{id, name, type, address_qualifier, offset, size}]}],
partition {column_width, start_columns, pdis [{uuid, size, cdo_groups [{name, kind, pdi_id, dpu_kernel_ids}]}]} or null,
manifest {file, partition, differences} or null.")]
pub(super) struct Inspect {
    /// The file.
    #[arg(value_name = "FILE.xclbin")]
    file: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Inspect {
    pub(super) fn run(self) -> Result<ExitCode, Box<dyn Error>> {
        let file = self.file.display();
        let bytes = build::read(&self.file).map_err(|error| format!("{file}: cannot read it: {error}"))?;
        let xclbin = Xclbin::parse(&bytes).map_err(|error| format!("{file}: {error}"))?;
        let manifest = self.compare(&bytes)?;
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut out, &Report { xclbin, manifest: manifest.as_ref() })
                .map_err(io::Error::from)?;
            writeln!(out)?;
        } else {
            writeln!(out, "{}: {} bytes", printable(&file.to_string()), xclbin.length)?;
            write(&mut out, &xclbin)?;
            if let Some(Comparison { file, partition, differences }) = &manifest {
                let is = if differences.is_empty() { "as" } else { "not as" };
                writeln!(out, "\nmanifest  {}: {is} built for {}", Text(file), Text(partition))?;
                differences.iter().try_for_each(|difference| writeln!(out, "  {}", Text(difference)))?;
            }
        }
        let is_built = manifest.is_none_or(|manifest| manifest.differences.is_empty());
        Ok(if is_built { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// The file and the instructions beside it against the manifest beside it, if there is one: `attn npu build` leaves one.
    fn compare(&self, xclbin: &[u8]) -> Result<Option<Comparison>, Box<dyn Error>> {
        let [_, instructions, path] = Artefacts::files(&self.file);
        let wrong = |error: &dyn fmt::Display| format!("{}: no manifest: {error}", path.display());
        let text = match build::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(wrong(&error).into()),
        };
        let manifest = Manifest::from_json(&text).map_err(|error| wrong(&error))?;
        let instructions = build::read(&instructions).ok();
        Ok(Some(Comparison {
            file: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            differences: manifest.differences(xclbin, instructions.as_deref())?,
            partition: manifest.partition,
        }))
    }
}

/// What is printed as JSON.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    xclbin: Xclbin,
    manifest: Option<&'a Comparison>,
}

/// The manifest beside the file, and what is not as it says.
#[derive(Serialize)]
struct Comparison {
    file: String,
    partition: String,
    differences: Vec<String>,
}

fn write(out: &mut impl Write, xclbin: &Xclbin) -> io::Result<()> {
    writeln!(out, "uuid      {}", xclbin.uuid)?;
    writeln!(out, "platform  {}", Text(&xclbin.platform))?;
    writeln!(out, "mode      {}", xclbin.mode)?;
    writeln!(out, "made      by XRT {}, {} s after 1970", xclbin.version, xclbin.time)?;
    writeln!(out, "\n{:24}{:>10}{:>10}  name", "section", "offset", "bytes")?;
    for section in &xclbin.sections {
        let (kind, name) = (section.kind, Text(&section.name));
        writeln!(out, "{kind:24}{:>10}{:>10}  {name}", section.offset, section.size)?;
    }
    xclbin.kernels.iter().try_for_each(|kernel| write_kernel(out, kernel))?;
    match &xclbin.partition {
        Some(partition) => write_partition(out, partition),
        None => writeln!(out, "\nno partition: not for an NPU"),
    }
}

fn write_kernel(out: &mut impl Write, kernel: &Kernel) -> io::Result<()> {
    write!(out, "\nkernel {}: {}", Text(&kernel.name), Text(&kernel.kind))?;
    if let Some(id) = kernel.dpu_kernel_id {
        write!(out, " {id:#x}")?;
    }
    writeln!(out, ", {}", list(kernel.instances.iter().map(|name| format!("instance {}", Text(name)))))?;
    for argument in &kernel.arguments {
        let id = argument.id.map_or_else(|| "-".to_owned(), |id| id.to_string());
        writeln!(
            out,
            "  {id:>2}  {}: {}, {}, {} bytes at {:#04x}",
            Text(&argument.name),
            Text(&argument.kind),
            argument.address_qualifier,
            argument.size,
            argument.offset,
        )?;
    }
    Ok(())
}

fn write_partition(out: &mut impl Write, partition: &Partition) -> io::Result<()> {
    let Partition { column_width, start_columns, pdis } = partition;
    let starts = list(start_columns.iter().map(u16::to_string));
    writeln!(out, "\npartition: {column_width} wide, start columns {starts}")?;
    for pdi in pdis {
        writeln!(out, "  PDI {}: {} bytes", pdi.uuid, pdi.size)?;
        for group in &pdi.cdo_groups {
            let kernels = list(group.dpu_kernel_ids.iter().map(|id| format!("{id:#x}")));
            let (name, kind, pdi_id) = (Text(&group.name), group.kind, group.pdi_id);
            writeln!(out, "    CDO group {name}: {kind}, PDI {pdi_id:#x}, kernels {kernels}")?;
        }
    }
    Ok(())
}

fn list(words: impl Iterator<Item = String>) -> String {
    let words: Vec<_> = words.collect();
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

/// Text of the file: nothing in it reaches the terminal as a command.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("-") } else { self.0.escape_debug().fmt(f) }
    }
}

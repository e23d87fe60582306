//! `cargo xtask xclbinutil`: XRT's own tool makes a container, and `attn npu inspect` says what the tool was told.

use std::{fs, process::Command};

use serde_json::{Value, json};

use crate::{debian::Debian, run::Run};

/// What the tool is told, and the container that is committed.
const INPUTS: &str = "crates/attn-npu/tests/xclbin";

pub(crate) fn check(run: &mut Run) -> Result<(), String> {
    let Some(debian) = Debian::find(run, "xclbinutil")? else { return Ok(()) };
    let folder = run.root.join("target/xclbin");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let made = folder.join("made.xclbin").display().to_string();
    // It looks for the PDI in its own folder.
    let mut make = debian.command(run, "env");
    make.arg("--chdir").arg(run.root.join(INPUTS)).arg("xclbinutil");
    make.args(["--add-replace-section", "MEM_TOPOLOGY:JSON:mem_topology.json", "--add-kernel", "kernels.json"]);
    make.args(["--add-replace-section", "AIE_PARTITION:JSON:partition.json", "--force", "--output", &made]);
    run.run(make)?;
    let mut info = debian.command(run, "xclbinutil");
    info.args(["--info", "--input", &made]);
    let info = output(info)?;
    let got = inspect(run, &made)?;

    // Who makes it, when, where, and under what name: all that may differ from the committed one.
    let committed = inspect(run, &run.root.join(INPUTS).join("stand_in.xclbin").display().to_string())?;
    let without = |mut file: Value| {
        for changing in ["uuid", "time", "version", "length"] {
            file[changing].take();
        }
        file
    };
    equal("the file, against the committed one", &without(got.clone()), &without(committed))?;

    equal("the UUID", &got["uuid"], &json!(value(&info, "UUID (xclbin):")?))?;
    equal("the version", &got["version"], &json!(value(&info, "Version:")?))?;
    equal("the sections", &each(&got["sections"], |section| section["kind"].clone()), &json!(sections(&info)?))?;
    let kernels = &read(run, "kernels.json")?["ps-kernels"]["kernels"];
    equal("the kernels", &got["kernels"], &each(kernels, kernel))?;
    let partition = &read(run, "partition.json")?["aie_partition"];
    let bytes = fs::metadata(run.root.join(INPUTS).join("stand_in.pdi")).map_err(|error| error.to_string())?.len();
    let expected = json!({
        "column_width": number(&partition["partition"]["column_width"]),
        "start_columns": each(&partition["partition"]["start_columns"], number),
        "pdis": each(&partition["PDIs"], |pdi| json!({
            "uuid": pdi["uuid"],
            "size": bytes,
            "cdo_groups": each(&pdi["cdo_groups"], |group| json!({
                "name": group["name"],
                "kind": lower_case(&group["type"]),
                "pdi_id": number(&group["pdi_id"]),
                "dpu_kernel_ids": each(&group["dpu_kernel_ids"], number),
            })),
        })),
    });
    equal("the partition", &got["partition"], &expected)?;
    println!("`attn npu inspect` says what xclbinutil {} was told", value(&info, "Version:")?);
    Ok(())
}

/// A kernel as it is described, from what the tool is told.
fn kernel(kernel: &Value) -> Value {
    let mut arguments = each(&kernel["arguments"], |argument| {
        let kind = argument["type"].as_str().unwrap_or_default();
        json!({
            "name": argument["name"],
            "type": kind,
            "address_qualifier": lower_case(&argument["address-qualifier"]),
            "offset": number(&argument["offset"]),
            "size": if kind == "uint32_t" { 4 } else { 8 },
        })
    });
    for (id, argument) in arguments.as_array_mut().into_iter().flatten().enumerate() {
        argument["id"] = json!(id);
    }
    json!({
        "name": kernel["name"],
        "type": kernel["type"],
        "dpu_kernel_id": number(&kernel["extended-data"]["dpu_kernel_id"]),
        "instances": each(&kernel["instances"], |instance| instance["name"].clone()),
        "arguments": arguments,
    })
}

/// What `attn npu inspect --json` says.
fn inspect(run: &Run, file: &str) -> Result<Value, String> {
    let arguments = ["run", "--quiet", "--package", "attn", "--", "npu", "inspect", file, "--json"];
    let text = output(run.command(&Run::cargo_program(), &arguments))?;
    serde_json::from_str(&text).map_err(|error| format!("`attn npu inspect {file}`: {error}"))
}

fn read(run: &Run, name: &str) -> Result<Value, String> {
    let path = run.root.join(INPUTS).join(name);
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// What a command prints.
fn output(mut command: Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr)))
}

/// The word behind the name of a line: `   UUID (xclbin):   00112233-4455-6677-8899-aabbccddeeff`.
fn value<'a>(info: &'a str, name: &str) -> Result<&'a str, String> {
    let values = info.lines().filter_map(|line| line.trim_start().strip_prefix(name));
    values.map(str::trim).next().ok_or_else(|| format!("xclbinutil --info: no line `{name}`"))
}

/// The names behind `Sections:`, which go on in the next lines as long as those end in a comma.
fn sections(info: &str) -> Result<Vec<&str>, String> {
    let mut lines = info.lines().skip_while(|line| !line.trim_start().starts_with("Sections:")).map(str::trim);
    let first = lines.next().and_then(|line| line.strip_prefix("Sections:")).ok_or("xclbinutil --info: no sections")?;
    let mut sections = vec![first.trim()];
    while sections.last().is_some_and(|line| line.ends_with(',')) {
        sections.extend(lines.next());
    }
    Ok(sections.into_iter().flat_map(|line| line.split(',')).map(str::trim).filter(|name| !name.is_empty()).collect())
}

fn each(array: &Value, convert: impl Fn(&Value) -> Value) -> Value {
    array.as_array().into_iter().flatten().map(convert).collect()
}

/// Numbers are strings there, decimal or hexadecimal.
fn number(text: &Value) -> Value {
    let text = text.as_str().unwrap_or_default();
    let number = text.strip_prefix("0x").map_or_else(|| text.parse(), |digits| u64::from_str_radix(digits, 16));
    number.map_or(Value::Null, Value::from)
}

fn lower_case(text: &Value) -> Value {
    text.as_str().map(str::to_lowercase).into()
}

fn equal(what: &str, got: &Value, expected: &Value) -> Result<(), String> {
    if got == expected { Ok(()) } else { Err(format!("{what}: got {got}, expected {expected}")) }
}

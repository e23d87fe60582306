//! `attn npu build`, with stand-ins for the tools (`tests/npu/`): what is run, what is made, and what is left after a failure.
#![cfg(unix)]

mod common;

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use common::{assert_usage_error, fixture, stderr, stdout};

/// The command with the stand-ins for tools, told to behave so.
fn command(stand_in: &str, arguments: &[&str]) -> Command {
    let path = format!("{}:/usr/bin:/bin", fixture("tests/npu/stand-in/bin"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_attn"));
    command.args(["npu", "build"]).args(arguments);
    command.env("PATH", path).env("PEANO_INSTALL_DIR", fixture("tests/npu/stand-in/peano"));
    command.env_remove("VIRTUAL_ENV").env("STAND_IN", stand_in);
    command
}

fn build(stand_in: &str, arguments: &[&str]) -> Output {
    command(stand_in, arguments).output().expect("the attn command starts")
}

fn files(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

const PRODUCTS: [&str; 3] = ["attn-tile-core.insts.bin", "attn-tile-core.json", "attn-tile-core.xclbin"];

#[test]
fn products_and_what_they_were_made_of() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("new");
    let arguments = ["--config", "tile-core", "--out", out.to_str().expect("UTF-8")];
    let first = build("", &arguments);
    assert!(first.status.success(), "{}", stderr(&first));
    assert_eq!(files(&out), PRODUCTS.map(String::from).into());
    for (number, what) in [(1, "write"), (2, "compile the kernel"), (3, "compile the design"), (4, "check")] {
        assert!(stderr(&first).contains(&format!("{number}/4 {what}")), "{}", stderr(&first));
    }
    assert_eq!(stdout(&first).lines().count(), 3);
    // The stand-ins are no pinned versions; Peano is not pinned.
    assert!(stderr(&first).contains("mlir-aie: got stand-in for aiecc, compiles nothing, written for 1e400306"));
    assert!(!stderr(&first).contains("llvm-aie: got"));

    let manifest = fs::read_to_string(out.join(PRODUCTS[1])).expect("a manifest");
    let manifest: serde_json::Value = serde_json::from_str(&manifest).expect("JSON");
    assert_eq!(manifest["device"], "npu1");
    assert_eq!(manifest["abi"], 1);
    assert_eq!(manifest["design"]["tiles"], 1);
    assert_eq!(manifest["tools"]["llvm-aie"], "stand-in for clang version 20, compiles nothing");
    assert_eq!(manifest["sources"].as_object().map(serde_json::Map::len), Some(5));
    assert_eq!(manifest["products"]["insts.bin"]["bytes"], 300);
    assert_eq!(manifest["products"]["xclbin"]["sha256"].as_str().map(str::len), Some(64));

    let inspect = |file: &Path| {
        Command::new(env!("CARGO_BIN_EXE_attn")).args(["npu", "inspect"]).arg(file).output().expect("it starts")
    };
    let found = inspect(&out.join(PRODUCTS[2]));
    assert!(found.status.success() && stdout(&found).contains("manifest  attn-tile-core.json: as built for npu1_1col"));

    // Nothing is rebuilt that is unchanged; a product that is not what the manifest says is made again.
    let second = build("clang-fails", &arguments);
    assert!(second.status.success() && stderr(&second).contains("up to date"), "{}", stderr(&second));
    let mut touched = fs::read(out.join(PRODUCTS[2])).expect("an xclbin");
    // The UUID: still a whole file, and not the one that was built.
    touched[416] ^= 1;
    fs::write(out.join(PRODUCTS[2]), touched).expect("written");
    let found = inspect(&out.join(PRODUCTS[2]));
    assert_eq!(found.status.code(), Some(1), "{}", stdout(&found));
    assert!(stdout(&found).contains("attn-tile-core.json: of another file"), "{}", stdout(&found));
    let third = build("", &arguments);
    assert!(third.status.success() && stderr(&third).contains("3/4"), "{}", stderr(&third));
}

#[test]
fn failures_leave_what_there_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path();
    let arguments = ["--config", "tile-core", "--out", out.to_str().expect("UTF-8")];
    let built = build("", &arguments);
    assert!(built.status.success(), "{}", stderr(&built));
    let products = || PRODUCTS.map(|name| fs::read(out.join(name)).expect("a product"));
    let before = products();
    // Another version of a tool asks for a new build.
    let manifest = out.join(PRODUCTS[1]);
    let text = fs::read_to_string(&manifest).expect("a manifest").replace("clang version 20", "clang version 19");
    fs::write(&manifest, &text).expect("written");
    for (stand_in, status, expected) in [
        ("clang-fails", 1, "clang++: exit status: 1"),
        ("aiecc-fails", 1, "line 3 of a long story"),
        ("aiecc-makes-nothing", 2, "aiecc: ended well, but made no attn.xclbin"),
        ("odd-instructions", 2, "instructions: bytes, a multiple of 4: got 301, expected 304"),
        (
            "truncated-instructions",
            2,
            "instructions: bytes of the file that the header announces: got 200, expected 300",
        ),
        ("truncated-xclbin", 2, "xclbin: "),
        ("foreign-xclbin", 2, "xclbin: "),
    ] {
        let output = build(stand_in, &arguments);
        assert_eq!(output.status.code(), Some(status), "{stand_in}: {}", stderr(&output));
        assert!(stderr(&output).contains(expected), "{stand_in}: {}", stderr(&output));
        assert!(stdout(&output).is_empty());
        let [instructions, _, xclbin] = products();
        assert_eq!([&instructions, &xclbin], [&before[0], &before[2]], "{stand_in}");
        assert_eq!(fs::read_to_string(&manifest).expect("a manifest"), text, "{stand_in}");
        let log = "attn-tile-core.build.log";
        let mut expected_files: BTreeSet<String> = PRODUCTS.map(String::from).into();
        if status == 1 {
            expected_files.insert(log.to_owned());
            assert!(fs::read_to_string(out.join(log)).expect("a log").contains("told to fail"));
        }
        assert_eq!(files(out), expected_files, "{stand_in}");
        let _ = fs::remove_file(out.join(log));
    }
}

#[test]
fn an_interrupted_build_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().to_str().expect("UTF-8");
    // Ctrl-C is for all processes of a terminal's group.
    let mut child =
        command("clang-is-slow", &["--out", out]).process_group(0).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut said = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    while !line.contains("2/4") {
        line.clear();
        assert_ne!(said.read_line(&mut line).expect("text"), 0, "it ended");
    }
    assert_eq!(files(folder.path()).len(), 1, "the work folder");
    let group = Pid::from_raw(-child.id().cast_signed());
    while !child.try_wait().is_ok_and(|status| status.is_some()) {
        // The tool may not have started yet.
        kill(group, Signal::SIGINT).expect("a signal");
        thread::sleep(Duration::from_millis(50));
    }
    // By the signal, or because the tool did not make what it should.
    assert!(matches!(child.wait().expect("ended").code(), Some(130 | 1)));
    assert!(files(folder.path()).iter().all(|name| name.ends_with(".build.log")), "{:?}", files(folder.path()));
}

#[test]
fn other_designs() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().to_str().expect("UTF-8");
    let output = build("", &["--columns", "1", "--rows", "1", "--tiles", "3", "--dim", "60", "--out", out]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(folder.path().join("attn-npu1-1x1-d64-tiles3.json").exists());
    // The stand-in's xclbin has one column.
    let output = build("", &["--out", out]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("xclbin: columns of the partition: got 1, expected 4"), "{}", stderr(&output));
    let dry = build("clang-fails", &["--config", "tile-core", "--dry-run", "--out", out]);
    assert!(dry.status.success() && stdout(&dry).contains("3. compile the design: "), "{}", stderr(&dry));
}

#[test]
fn tools_of_a_python_environment() {
    let folder = tempfile::tempdir().expect("a folder");
    let packages = folder.path().join("lib/python3.13/site-packages");
    for (file, stand_in) in [("llvm-aie/bin/clang++", "peano/bin/clang++"), ("mlir_aie/bin/aiecc", "bin/aiecc")] {
        let file = packages.join(file);
        fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        let stand_in = fixture(&format!("tests/npu/stand-in/{stand_in}"));
        fs::write(&file, format!("#!/bin/sh\nexec '{stand_in}' \"$@\"\n")).expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("executable");
    }
    let environment = |arguments: &[&str]| {
        let mut command = command("", arguments);
        command.env_remove("PEANO_INSTALL_DIR").env("PATH", "/usr/bin:/bin").env("VIRTUAL_ENV", folder.path());
        command.output().expect("the attn command starts")
    };
    let out = folder.path().join("out");
    let arguments = ["--config", "tile-core", "--out", out.to_str().expect("UTF-8")];
    fs::rename(packages.join("mlir_aie"), packages.join("elsewhere")).expect("renamed");
    let without = environment(&arguments);
    let text = "expanded_assets/latest-wheels-3 (written for version 1e400306)";
    assert!(stderr(&without).starts_with("attn: aiecc: not found in PATH, ") && stderr(&without).contains(text));
    fs::rename(packages.join("elsewhere"), packages.join("mlir_aie")).expect("renamed");
    let headless = environment(&arguments);
    assert_eq!(headless.status.code(), Some(2));
    assert!(stderr(&headless).contains("aie_api/aie.hpp: not found in "), "{}", stderr(&headless));
    let headers = packages.join("mlir_aie/include/aie_api");
    fs::create_dir_all(&headers).expect("made");
    fs::write(headers.join("aie.hpp"), "").expect("written");
    let built = environment(&arguments);
    assert!(built.status.success(), "{}", stderr(&built));
    assert!(stderr(&built).contains("site-packages/llvm-aie/bin/clang++ -O2"), "{}", stderr(&built));
    assert!(stderr(&built).contains("site-packages/mlir_aie/include"), "{}", stderr(&built));
}

#[test]
fn what_is_wrong_is_said_in_one_line() {
    let npu = |arguments: &[&'static str]| [&["npu", "build"], arguments].concat();
    assert_usage_error(&npu(&["--config", "tiles"]), &["--config", "expected tile-core"]);
    assert_usage_error(&npu(&["--columns", "5"]), &["columns: got 5, expected 1 to 4"]);
    assert_usage_error(&npu(&["--device", "npu3"]), &["npu1, npu2"]);
    assert_usage_error(&npu(&["--heads", "8"]), &["--queries", "--keys"]);
    assert_usage_error(&npu(&["--config", "tile-core", "--tiles", "3"]), &["cannot be used with"]);
    let missing = Command::new(env!("CARGO_BIN_EXE_attn"))
        .args(["npu", "build"])
        .env("PEANO_INSTALL_DIR", "/nowhere")
        .output()
        .expect("the attn command starts");
    assert_eq!(missing.status.code(), Some(2));
    let text = stderr(&missing);
    assert_eq!(text.lines().count(), 1, "{text}");
    for part in ["Peano's bin/clang++", "PEANO_INSTALL_DIR=/nowhere", "pip install llvm-aie"] {
        assert!(text.contains(part), "{text}");
    }
    let unwritable = build("", &["--out", "/proc/attn"]);
    assert_eq!(unwritable.status.code(), Some(2));
    assert!(stderr(&unwritable).contains("/proc/attn: "), "{}", stderr(&unwritable));
}

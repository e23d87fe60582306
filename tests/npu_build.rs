//! `attn npu build`, with stand-ins for the tools (`tests/npu/`): what is run, what is made, and what is left after a failure.
#![cfg(unix)]

mod common;

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    os::unix::{
        fs::{PermissionsExt, symlink},
        process::CommandExt,
    },
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use common::{fixture, stderr, stdout};

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
    assert_eq!(
        manifest["flags"]["llvm-aie"],
        "-O2 -std=c++20 --target=aie2-none-unknown-elf -DATTN_KERNEL_DIM=64 -c aie2/attention_tile.cc -o attention_tile.o"
    );
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
    let text = stdout(&found);
    assert!(
        text.contains(
            "manifest  attn-tile-core.json: not as built for npu1_1col\n  xclbin: got 6522 bytes of SHA-256 "
        ),
        "{text}"
    );
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
        ("clang-fails", 1, "clang++: exit status: 1; all of it: "),
        ("aiecc-fails", 1, "line 3 of a long story"),
        ("aiecc-makes-nothing", 1, "aiecc: ended well, but made no attn.xclbin; all of it: "),
        ("aiecc-is-silent", 1, "aiecc: ended well, but made no attn.xclbin; it said nothing: "),
        ("no-instructions", 1, "aiecc: ended well, but made no insts.bin; it said nothing: "),
        ("empty-instructions", 1, "aiecc: ended well, but made no insts.bin; it said nothing: "),
        ("other-instructions", 2, "instructions: columns: got 4, expected 1"),
        ("odd-instructions", 2, "instructions: bytes, a multiple of 4: got 301, expected 304"),
        (
            "truncated-instructions",
            2,
            "instructions: bytes of the file that the header announces: got 200, expected 300",
        ),
        ("truncated-xclbin", 2, "xclbin: it is cut off: got 6000 bytes, expected 6522"),
        ("foreign-xclbin", 2, "xclbin: not an xclbin: it starts with \"not an x\", expected "),
        ("other-kernel", 2, "xclbin: kernel: got MLIR_OLD, expected MLIR_AIE"),
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
            let said = fs::read_to_string(out.join(log)).expect("a log");
            assert_eq!(said.is_empty(), expected.contains("it said nothing"), "{said}");
            assert!(said.lines().all(|line| stderr(&output).contains(line)), "{said}");
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
    assert_eq!(child.wait().expect("ended").code(), Some(130));
    assert_eq!(files(folder.path()), BTreeSet::new());
}

/// `kill` reaches the command alone: it waits for the tool that runs, and starts no other.
#[test]
fn a_build_that_is_asked_to_end_starts_no_tool() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().to_str().expect("UTF-8");
    let mut child = command("clang-takes-a-second", &["--out", out]).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut said = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    while !line.contains("2/4") {
        line.clear();
        assert_ne!(said.read_line(&mut line).expect("text"), 0, "it ended");
    }
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).expect("a signal");
    assert_eq!(child.wait().expect("ended").code(), Some(130));
    assert_eq!(files(folder.path()), BTreeSet::new());
    line.clear();
    assert_eq!(said.read_line(&mut line).expect("text"), 0, "{line}");
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
    let shallow = build("", &["--columns", "1", "--depth", "1", "--out", out]);
    assert!(stdout(&shallow).contains("attn-npu1-1x4-d64-tiles1-depth1.xclbin"), "{}", stderr(&shallow));
    let dry = command("clang-fails", &["--config", "tile-core", "--dry-run", "--out", out])
        .env("PATH", "/nowhere")
        .env_remove("PEANO_INSTALL_DIR")
        .output()
        .expect("the attn command starts");
    assert!(dry.status.success(), "{}", stderr(&dry));
    let expected = [
        "1. write the kernel's sources and the design, design.mlir, into a work folder",
        "2. compile the kernel: $PEANO_INSTALL_DIR/bin/clang++ -O2 -std=c++20 --target=aie2-none-unknown-elf \
         -DATTN_KERNEL_DIM=64 -Imlir_aie/include -c aie2/attention_tile.cc -o attention_tile.o",
        "3. compile the design: aiecc --no-xchesscc --no-xbridge --peano=$PEANO_INSTALL_DIR --no-compile-host \
         --alloc-scheme=basic-sequential --aie-generate-xclbin --xclbin-name=attn.xclbin --aie-generate-npu-insts \
         --npu-insts-name=insts.bin design.mlir",
        "4. check the products",
    ];
    assert_eq!(stdout(&dry).lines().collect::<Vec<_>>(), expected);
}

#[test]
fn tools_of_a_python_environment() {
    let folder = tempfile::tempdir().expect("a folder");
    let packages = folder.path().join("lib/python3.13/site-packages");
    let compiler = "peano/bin/clang++";
    for (file, stand_in) in [
        ("llvm-aie/bin/clang++", compiler),
        ("llvm-aie/bin/clang", compiler),
        ("llvm-aie/bin/opt", compiler),
        ("llvm-aie/bin/llc", compiler),
        ("llvm-aie/bin/ld.lld", compiler),
        ("mlir_aie/bin/aiecc", "bin/aiecc"),
    ] {
        let file = packages.join(file);
        fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        let stand_in = fixture(&format!("tests/npu/stand-in/{stand_in}"));
        fs::write(&file, format!("#!/bin/sh\nexec '{stand_in}' \"$@\"\n")).expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("executable");
    }
    // What the stand-ins call, and nothing else: the system may have an `xclbinutil`.
    let path = folder.path().join("bin");
    fs::create_dir(&path).expect("made");
    for tool in ["cp", "dirname", "grep"] {
        let mut places = ["/usr/bin", "/bin"].map(|folder| Path::new(folder).join(tool)).into_iter();
        symlink(places.find(|place| place.exists()).expect(tool), path.join(tool)).expect("linked");
    }
    let environment = |arguments: &[&str]| {
        let mut command = command("", arguments);
        command.env_remove("PEANO_INSTALL_DIR").env("PATH", &path).env("VIRTUAL_ENV", folder.path());
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
    // `aiecc` would make no container, and say nothing.
    let without = environment(&arguments);
    assert_eq!(without.status.code(), Some(2));
    assert!(stderr(&without).starts_with("attn: xclbinutil: not found in PATH, beside "), "{}", stderr(&without));
    assert!(stderr(&without).contains("; it comes with XRT: apt-get install libxrt-utils"), "{}", stderr(&without));
    fs::copy(fixture("tests/npu/stand-in/bin/xclbinutil"), packages.join("mlir_aie/bin/xclbinutil")).expect("copied");
    let built = environment(&arguments);
    assert!(built.status.success(), "{}", stderr(&built));
    assert!(stderr(&built).contains("site-packages/llvm-aie/bin/clang++ -O2"), "{}", stderr(&built));
    assert!(stderr(&built).contains("site-packages/mlir_aie/include"), "{}", stderr(&built));
    // `aiecc` would take the `opt` of PATH.
    fs::remove_file(packages.join("llvm-aie/bin/opt")).expect("removed");
    let without = environment(&arguments);
    assert_eq!(without.status.code(), Some(2));
    assert!(stderr(&without).starts_with("attn: Peano's bin/opt: not found in "), "{}", stderr(&without));
}

/// The tools run in the work folder, wherever they are said to be from here.
#[test]
fn relative_paths() {
    let folder = tempfile::tempdir().expect("a folder");
    symlink(fixture("tests/npu/stand-in"), folder.path().join("tools")).expect("linked");
    let mut command = command("", &["--config", "tile-core", "--out", "out"]);
    command.current_dir(&folder).env("PATH", "tools/bin:/usr/bin:/bin").env("PEANO_INSTALL_DIR", "tools/peano");
    let output = command.output().expect("the attn command starts");
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).starts_with("out/attn-tile-core.xclbin\n"), "{}", stdout(&output));
}

#[test]
fn versions_of_tools() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().to_str().expect("UTF-8");
    let arguments = ["--config", "tile-core", "--out", out];
    let silent = build("xclbinutil-is-empty", &arguments);
    assert_eq!(silent.status.code(), Some(2));
    assert!(stderr(&silent).contains("stand-in/bin/xclbinutil (which says no version); "), "{}", stderr(&silent));
    let doubtful = build("clang-21", &arguments);
    assert!(doubtful.status.success(), "{}", stderr(&doubtful));
    let expected = "attn: llvm-aie: got clang version 21: int8 products were wrong on npu1 (mlir-aie issue 3778, open in \
                    September 2026); it is tried\n";
    assert!(stderr(&doubtful).contains(expected), "{}", stderr(&doubtful));
    // Another version of a tool, and what was built is not what it would make.
    let other = build("", &arguments);
    assert!(stderr(&other).contains("3/4 ") && !stderr(&other).contains("int8 products"), "{}", stderr(&other));
}

/// Whatever the manifest says that is not so today.
#[test]
fn what_is_changed_is_built_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let manifest = folder.path().join(PRODUCTS[1]);
    let arguments = ["--config", "tile-core", "--out", folder.path().to_str().expect("UTF-8")];
    assert!(build("", &arguments).status.success());
    let text = fs::read_to_string(&manifest).expect("a manifest");
    let built: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    for (pointer, other) in [
        ("/device", "npu2".into()),
        ("/design/depth", 1.into()),
        ("/abi", 0.into()),
        ("/arithmetic", 0.into()),
        ("/tools/llvm-aie", "another".into()),
        ("/tools/mlir-aie", "another".into()),
        ("/tools/xclbinutil", "another".into()),
        ("/flags/llvm-aie", "-O3".into()),
        ("/flags/mlir-aie", "another".into()),
        ("/sources/aie2~1attention_tile.cc", "another".into()),
        ("/sources/attention_row.h", "another".into()),
        ("/sources/design.mlir", "another".into()),
        ("/products/insts.bin/sha256", "another".into()),
        ("/products/xclbin/bytes", 1.into()),
        ("/products", serde_json::Value::Null),
    ] {
        let mut changed = built.clone();
        *changed.pointer_mut(pointer).expect(pointer) = other;
        fs::write(&manifest, changed.to_string()).expect("written");
        let output = build("", &arguments);
        assert!(output.status.success() && stderr(&output).contains("3/4 "), "{pointer}: {}", stderr(&output));
        assert_eq!(fs::read_to_string(&manifest).expect("a manifest"), text, "{pointer}");
    }
    fs::remove_file(folder.path().join(PRODUCTS[0])).expect("removed");
    assert!(stderr(&build("", &arguments)).contains("3/4 "));
    assert!(stderr(&build("clang-fails", &arguments)).contains("up to date"));
}

#[test]
fn inspect_compares_with_the_manifest() {
    let folder = tempfile::tempdir().expect("a folder");
    let [instructions, manifest, xclbin] = PRODUCTS.map(|name| folder.path().join(name));
    assert!(build("", &["--config", "tile-core", "--out", folder.path().to_str().expect("UTF-8")]).status.success());
    let inspect = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_attn"));
        command.args(["npu", "inspect"]).arg(&xclbin).args(arguments).output().expect("the attn command starts")
    };
    let differences = || {
        let output = inspect(&["--json"]);
        let report: serde_json::Value = serde_json::from_str(stdout(&output)).expect("JSON");
        let differences: Vec<String> =
            serde_json::from_value(report["manifest"]["differences"].clone()).expect("differences");
        assert_eq!(output.status.code(), Some(i32::from(!differences.is_empty())));
        differences
    };
    assert_eq!(differences(), <[&str; 0]>::default());
    let text = fs::read_to_string(&manifest).expect("a manifest");
    for (from, to, expected) in [
        ("\"npu1\"", "\"npu2\"", "device: got npu1, expected npu2"),
        ("\"columns\": 1", "\"columns\": 4", "columns: got 1, expected 4"),
    ] {
        fs::write(&manifest, text.replace(from, to)).expect("written");
        assert_eq!(differences(), [expected]);
    }
    fs::write(&manifest, &text).expect("written");
    fs::copy(fixture("tests/npu/recorded/whisper-base.insts.bin"), &instructions).expect("copied");
    let [difference] = &differences()[..] else { panic!("{:?}", differences()) };
    assert!(difference.starts_with("insts.bin: got 3248 bytes of SHA-256 "), "{difference}");
    assert!(difference.contains(", expected 300 bytes of SHA-256 "), "{difference}");
    fs::remove_file(&instructions).expect("removed");
    assert!(differences()[0].starts_with("insts.bin: got none, expected 300 bytes"), "{:?}", differences());
    for text in ["", "{}", "[1"] {
        fs::write(&manifest, text).expect("written");
        let output = inspect(&[]);
        assert_eq!((output.status.code(), stderr(&output).lines().count()), (Some(2), 1), "{}", stderr(&output));
        assert!(stderr(&output).contains("attn-tile-core.json: no manifest: "), "{}", stderr(&output));
    }
}

#[test]
fn products_that_have_no_place_are_not_built() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("attn-tile-core.insts.bin")).expect("made");
    let occupied = build("", &["--config", "tile-core", "--out", folder.path().to_str().expect("UTF-8")]);
    assert_eq!(occupied.status.code(), Some(2));
    assert!(stderr(&occupied).contains("attn-tile-core.insts.bin: is a directory"), "{}", stderr(&occupied));
    assert_eq!(files(folder.path()).len(), 1);
    let unwritable = build("", &["--out", "/proc/attn"]);
    assert_eq!(unwritable.status.code(), Some(2));
    assert!(stderr(&unwritable).contains("/proc/attn: "), "{}", stderr(&unwritable));
}

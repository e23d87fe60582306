//! `cargo xtask emulated-npu` and `cargo xtask npu`: the backend `npu` through XRT, on an emulated driver in a Debian of its own, and
//! the same tests on a device.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{debian::Debian, run::Run};

/// What the tests run on, as `attn npu build` is asked for it; tests/npu/recorded has the instructions of each.
const DESIGNS: [&[&str]; 7] = [
    &["--config", "tile-core"],
    &["--config", "tile-array"],
    &["--config", "tiles-array"],
    &["--config", "whisper-base"],
    &["--tiles", "4"],
    &["--columns", "1", "--heads", "1", "--queries", "256", "--keys", "1536"],
    &[
        "--columns",
        "2",
        "--rows",
        "3",
        "--dim",
        "80",
        "--depth",
        "1",
        "--heads",
        "6",
        "--queries",
        "200",
        "--keys",
        "300",
    ],
];

/// Those of which the conformance suite is run: a tile for each core, long heads, and another dimension on several columns, each
/// of which has so many heads that it waits for the first one before it starts the last one.
const CONFORMANCE: [&str; 3] =
    ["tile-array", "npu1-1x4-d64-sequence-1x256x1536", "npu1-2x3-d80-sequence-6x200x300-depth1"];

/// How XRT is called: features of the package `attn`.
const BINDINGS: [&str; 2] = ["xrt-shim", "xrt"];

/// What stands beside the results of emulation.
const PROVES: &str = "\
emulated: XRT, its plug-in and the calls to the driver are real, and so are the instruction sequences, which were followed transfer
by transfer; the driver, the firmware, the array, its routes and programs (the PDI), and all timing are not. Nothing of this is a
result of an NPU.";

/// Everything that is run without a device.
pub(crate) fn emulated(run: &mut Run) -> Result<(), String> {
    run.skip("backend npu on a device", "there is none here: `cargo xtask npu` on a machine that has one");
    let Some(debian) = Debian::find(run, "backend npu on the emulated driver")? else { return Ok(()) };
    // There is no network inside.
    run.cargo(&["fetch", "--locked"])?;
    let target = run.root.join("target/emulated-npu");
    fs::create_dir_all(&target).map_err(|error| format!("{}: {error}", target.display()))?;
    let emulator = build_emulator(run, &debian, &target)?;
    let tree = make_tree(&target).map_err(|error| format!("{}: {error}", target.display()))?;
    let preload = |command: &mut Command| {
        command.env("ATTN_EMULATOR", &tree);
        // The programs that are tested only: neither cargo nor compilers.
        let runner = format!("env LD_PRELOAD={}", emulator.display());
        command.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", runner);
    };

    let mut examine = debian.command(run, "env");
    examine.env("ATTN_EMULATOR", &tree).arg(format!("LD_PRELOAD={}", emulator.display())).args(["xrt-smi", "examine"]);
    let listed = examine.output().map_err(|error| format!("xrt-smi: {error}"))?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    println!("{listed}");
    if !listed.contains("emulated NPU Phoenix") {
        return Err("`xrt-smi examine` does not list the emulated device".to_owned());
    }

    let stand_ins = run.root.join("tests/npu");
    let settings = tree.join("xrt.ini");
    for binding in BINDINGS {
        // XRT asks the driver to synchronise buffers, which then shows the device nothing else of them.
        fs::write(&settings, "[Debug]\nforce_driver_sync=true\n").map_err(|error| error.to_string())?;
        let cargo = |run: &Run, arguments: &[&str]| {
            let mut command = debian.command(run, "cargo");
            command.args(arguments).args(["--offline", "--package", "attn", "--features", binding]);
            preload(&mut command);
            // What the crate `xrt` asks for.
            command.env("XILINX_XRT", "/usr").env("BINDGEN_EXTRA_CLANG_ARGS", "-I/usr/include/xrt");
            // What builds an xclbin for the emulated array.
            let path = format!("{}/emulated/bin:{}", stand_ins.display(), path_of(&command));
            command.env("PATH", path).env("PEANO_INSTALL_DIR", stand_ins.join("stand-in/peano"));
            command
        };
        run.run(lint(cargo(run, &["clippy", "--all-targets"])))?;
        let npu = target.join("npu");
        tests(run, &npu, &cargo)?;
        // As it does it where a device is, which is quicker.
        fs::remove_file(&settings).map_err(|error| error.to_string())?;
        let mut bench = cargo(run, &["bench", "--bench", "attention"]);
        // A session's self-test is computed; after that the array is idle, and what is left is the host.
        bench.args(["--", "npu"]).env("ATTN_NPU", npu).env("ATTN_EMULATOR_FAULT", "idle:3");
        run.run(bench)?;
    }
    run.tests_with("XRT on the emulated driver");
    println!("{PROVES}");
    Ok(())
}

/// The same on the NPU of this machine, with what XRT, Peano and mlir-aie it has.
pub(crate) fn device(run: &mut Run) -> Result<(), String> {
    let cargo = |run: &Run, arguments: &[&str]| {
        let mut command = run.command(&Run::cargo_program(), arguments);
        command.args(["--package", "attn", "--features", BINDINGS[0]]);
        command
    };
    let npu = run.root.join("npu");
    tests(run, &npu, &cargo)?;
    let mut bench = cargo(run, &["bench", "--bench", "attention"]);
    bench.args(["--", "npu"]).env("ATTN_NPU", npu);
    run.run(bench)?;
    run.skip("failures of the driver", "they are injected into the emulated one: `cargo xtask emulated-npu`");
    Ok(())
}

/// Of what is compiled with a binding only.
fn lint(mut clippy: Command) -> Command {
    clippy.args(["--package", "attn-npu", "--", "--deny", "warnings"]);
    clippy
}

/// Builds the designs, and runs every test that takes a device.
fn tests(run: &mut Run, npu: &Path, cargo: &dyn Fn(&Run, &[&str]) -> Command) -> Result<(), String> {
    for design in DESIGNS {
        let mut build = cargo(run, &["run", "--quiet", "--release"]);
        build.args(["--", "npu", "build", "--out"]).arg(npu).args(design);
        run.run(build)?;
    }
    let xclbin = |name: &str| npu.join(format!("attn-{name}.xclbin"));
    for name in CONFORMANCE {
        let mut test = cargo(run, &["test", "--release", "--test", "conformance"]);
        // Every one of them says what computed.
        test.args(["--", "--nocapture", "--test-threads=1", "npu::"]).env("ATTN_NPU_XCLBIN", xclbin(name));
        run.run(test)?;
    }
    let mut test = cargo(run, &["test", "--release", "--test", "npu_device"]);
    test.args(["--", "--nocapture", "--test-threads=1"]).env("ATTN_NPU", npu);
    run.run(test)?;
    let mut validate = cargo(run, &["run", "--quiet", "--release"]);
    validate.args(["--", "validate", "--backend", "npu", "--xclbin"]).arg(xclbin("whisper-base"));
    run.run(validate)
}

fn path_of(command: &Command) -> String {
    let path = command.get_envs().find(|(name, _)| *name == "PATH").and_then(|(_, value)| value);
    path.unwrap_or_default().to_string_lossy().into_owned()
}

fn build_emulator(run: &mut Run, debian: &Debian, target: &Path) -> Result<PathBuf, String> {
    let library = target.join("libattn-emulator.so");
    let mut command = debian.command(run, "gcc");
    command
        .args(["-std=c11", "-O3", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-Ikernels", "-o"])
        .arg(&library);
    command.args(["preload.c", "driver.c", "array.c"].map(|file| format!("crates/attn-npu/emulator/{file}")));
    command.args(["kernels/attention_tile.c", "-lpthread"]);
    run.run(command)?;
    Ok(library)
}

/// What the kernel would show of the device, and of one without a driver.
fn make_tree(target: &Path) -> std::io::Result<PathBuf> {
    const ADDRESS: &str = "0000:c6:00.1";
    let tree = target.join("tree");
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    for (root, has_driver) in [(tree.clone(), true), (tree.join("no-driver"), false)] {
        let sys = root.join("sys");
        let device = sys.join("devices/pci0000:00").join(ADDRESS);
        fs::create_dir_all(&device)?;
        for (file, text) in [("vendor", "0x1022"), ("device", "0x1502"), ("revision", "0x00")] {
            fs::write(device.join(file), format!("{text}\n"))?;
        }
        let link = |folder: &str, to: &str| {
            let folder = sys.join(folder);
            fs::create_dir_all(&folder)?;
            symlink(format!("{to}devices/pci0000:00/{ADDRESS}"), folder.join(ADDRESS))
        };
        link("bus/pci/devices", "../../../")?;
        if !has_driver {
            continue;
        }
        for (file, text) in [("device_type", "0"), ("vbnv", "emulated NPU Phoenix"), ("fw_version", "emulated")] {
            fs::write(device.join(file), format!("{text}\n"))?;
        }
        fs::write(device.join("resource"), "")?;
        fs::create_dir_all(device.join("accel/accel0"))?;
        fs::create_dir_all(device.join("iommu_group"))?;
        link("bus/pci/drivers/amdxdna", "../../../../")?;
        symlink("../../../bus/pci/drivers/amdxdna", device.join("driver"))?;
        fs::create_dir_all(sys.join("module/amdxdna"))?;
        fs::write(sys.join("module/amdxdna/version"), "emulated\n")?;
        fs::create_dir_all(root.join("dev/accel"))?;
        fs::write(root.join("dev/accel/accel0"), "")?;
    }
    Ok(tree)
}

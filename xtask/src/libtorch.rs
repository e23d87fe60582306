//! libtorch below `target/`: taken from wheels, which pip downloads and checks by their hashes.

use std::{env, fs, io, path::Path};

use attn_libtorch::{Libtorch, REQUIREMENTS, find, is_users_own, required};

use crate::{checks, folders::remove, packages, run::Run};

/// What is taken from the wheels into `lib`. The rest, over a gigabyte, is for GPUs and for Python.
const LIBRARIES: [&str; 5] = [
    "torch/lib/libtorch_cpu.so",
    "torch/lib/libc10.so",
    "torch/lib/libgomp.so.1",
    "nvidia/cu13/lib/libcudart.so.13",
    "nvidia/cu13/lib/libcupti.so.13",
];

/// The file in the installed folder that holds what it was installed from.
const STAMP: &str = "libtorch.txt";

/// `cargo xtask libtorch`.
pub(crate) fn install(run: &mut Run) -> Result<(), String> {
    if let Some(libtorch) = ensure(run)? {
        println!("libtorch {} in {}: build with `--features torch`", libtorch.version, libtorch.lib.display());
    }
    Ok(())
}

/// The check `torch`: everything that needs libtorch.
pub(crate) fn check(run: &mut Run) -> Result<(), String> {
    // The same packages in every call, so that C++ is compiled once.
    const PACKAGES: [&str; 6] = ["--package", "attn-ref", "--package", "attn", "--features", "attn/torch"];
    let Some(libtorch) = ensure(run)? else { return Ok(()) };
    let cargo = |command: &'static str, arguments: &[&'static str]| [&[command], &PACKAGES[..], arguments].concat();
    run.cargo(&cargo("clippy", &["--all-targets", "--", "--deny", "warnings"]))?;
    let mut doc = run.command(&Run::cargo_program(), &cargo("doc", &["--no-deps", "--document-private-items"]));
    doc.env("RUSTDOCFLAGS", "--deny warnings");
    run.run(doc)?;
    // The targets whose tests use libtorch, and no others: the summary says how many ran with it.
    run.tests_with(&format!("libtorch {}", libtorch.version));
    run.cargo(&cargo("test", &["--test", "torch", "--test", "bench"]))?;
    run.cargo(&cargo("test", &["--doc", "--", "torch.rs"]))
}

/// The libtorch to build with: the user's own or, installed where it is missing, that of `target/`. None, and noted as
/// skipped, on a machine for which there is none.
pub(crate) fn ensure(run: &mut Run) -> Result<Option<Libtorch>, String> {
    let installed = run.root.join("target/libtorch");
    if is_users_own(&installed) {
        run.say("libtorch is the one that the environment names, nothing is installed");
    } else if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        download(run, &installed)?;
    } else {
        let version = required();
        let why = format!(
            "it is installed on x86-64 Linux only; elsewhere set LIBTORCH to the folder of version {version}, or \
             `pip install torch=={version}` and set LIBTORCH_USE_PYTORCH=1"
        );
        run.skip("libtorch", &why);
        return Ok(None);
    }
    compiler(run)?;
    find(&installed).map(Some)
}

/// A C++ compiler, for the glue of `torch-sys`.
fn compiler(run: &mut Run) -> Result<(), String> {
    if env::var_os("CXX").is_some() || packages::has(run, "c++", "g++") {
        return Ok(());
    }
    Err("a C++ compiler is needed (on Debian, as root: apt-get install g++)".to_owned())
}

/// Installs the pinned version, unless it is there.
fn download(run: &mut Run, installed: &Path) -> Result<(), String> {
    let complete = LIBRARIES.iter().all(|path| installed.join("lib").join(file_name(path)).is_file());
    if complete && fs::read_to_string(installed.join(STAMP)).is_ok_and(|stamp| stamp == REQUIREMENTS) {
        run.say(&format!("libtorch {} is installed already", required()));
        return Ok(());
    }
    let partial = run.root.join("target/libtorch.partial");
    let wheels = partial.join("wheels");
    let failed = |error: io::Error| format!("{}: {error}", partial.display());
    remove(&partial)?;
    fs::create_dir_all(&partial).map_err(failed)?;

    run.say(&format!("downloading libtorch {}, 540 MB", required()));
    unpack_wheels(run, REQUIREMENTS, &wheels)
        .map_err(|_| format!("pip did not get libtorch {} with the pinned hashes: see above", required()))?;

    assemble(&wheels, &partial.join("libtorch")).map_err(failed)?;
    remove(installed)?;
    fs::rename(partial.join("libtorch"), installed).map_err(failed)?;
    remove(&partial)
}

/// Downloads wheels by their hashes and unpacks them into a folder, whose own folder is there.
pub(crate) fn unpack_wheels(run: &mut Run, requirements: &str, wheels: &Path) -> Result<(), String> {
    let python = checks::python(run)?;
    let file = wheels.with_extension("txt");
    fs::write(&file, requirements).map_err(|error| format!("{}: {error}", file.display()))?;
    // For CPython 3.11, whatever runs this: only C++ and data are used.
    let options = "-m pip install --quiet --no-cache-dir --disable-pip-version-check --no-compile --no-deps --require-hashes \
                   --only-binary=:all: --implementation cp --python-version 3.11 --abi cp311 --abi none \
                   --platform manylinux_2_28_x86_64 --platform manylinux_2_25_x86_64 --platform manylinux_2_17_x86_64";
    let mut pip = run.command(&python, &options.split_whitespace().collect::<Vec<_>>());
    pip.arg("--target").arg(wheels).arg("--requirement").arg(&file);
    // On the same file system, so that files are moved and never copied.
    pip.env("TMPDIR", wheels.parent().unwrap_or(Path::new(".")));
    run.run(pip)
}

/// Moves what is needed out of the unpacked wheels; the stamp comes last.
fn assemble(wheels: &Path, libtorch: &Path) -> io::Result<()> {
    let lib = libtorch.join("lib");
    fs::create_dir_all(&lib)?;
    fs::rename(wheels.join("torch/include"), libtorch.join("include"))?;
    for library in LIBRARIES {
        fs::rename(wheels.join(library), lib.join(file_name(library)))?;
    }
    // The library of this name depends on the GPU's. `torch-sys` links it, so the linker gets the two others instead.
    fs::write(lib.join("libtorch.so"), "INPUT(libtorch_cpu.so libc10.so)\n")?;
    fs::write(libtorch.join("build-version"), required())?;
    fs::write(libtorch.join(STAMP), REQUIREMENTS)
}

/// The last part of a path of [`LIBRARIES`].
fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

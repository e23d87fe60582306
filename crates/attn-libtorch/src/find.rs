//! A module of the library and of its build script.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The requirements that pip installs libtorch from.
pub const REQUIREMENTS: &str = include_str!("../libtorch.txt");

/// The environment variables that `torch-sys` finds libtorch by.
pub const VARIABLES: [&str; 6] =
    [USE_PYTORCH, LIBTORCH, LIBTORCH_INCLUDE, LIBTORCH_LIB, BYPASS_VERSION_CHECK, VIRTUAL_ENV];
const USE_PYTORCH: &str = "LIBTORCH_USE_PYTORCH";
const LIBTORCH: &str = "LIBTORCH";
const LIBTORCH_INCLUDE: &str = "LIBTORCH_INCLUDE";
const LIBTORCH_LIB: &str = "LIBTORCH_LIB";
const BYPASS_VERSION_CHECK: &str = "LIBTORCH_BYPASS_VERSION_CHECK";
const VIRTUAL_ENV: &str = "VIRTUAL_ENV";

/// Where headers have the version: today and in older versions.
const VERSION_HEADERS: [&str; 2] = ["torch/headeronly/version.h", "torch/csrc/api/include/torch/version.h"];

/// What the linker looks for, on Linux, macOS and Windows, and for `LIBTORCH_STATIC`.
const LIBRARIES: [&str; 4] = ["libtorch.so", "libtorch.dylib", "torch.lib", "libtorch.a"];

/// A libtorch of the required version.
pub struct Libtorch {
    /// `MAJOR.MINOR.PATCH`.
    pub version: String,
    /// The header that says so.
    pub header: PathBuf,
    /// The folder of the shared libraries.
    pub lib: PathBuf,
}

/// The version that `tch` is made for, of [`REQUIREMENTS`].
///
/// # Panics
/// If the requirements have no such line.
#[must_use]
pub fn required() -> &'static str {
    let pinned = REQUIREMENTS.lines().find_map(|line| line.strip_prefix("torch=="));
    pinned.and_then(|rest| rest.split_whitespace().next()).expect("libtorch.txt has a line `torch==VERSION --hash=…`")
}

/// Whether the environment names another libtorch than `installed`, which cargo's configuration names.
#[must_use]
pub fn is_users_own(installed: &Path) -> bool {
    [USE_PYTORCH, LIBTORCH_INCLUDE, LIBTORCH_LIB].iter().any(|variable| env::var_os(variable).is_some())
        || env::var_os(LIBTORCH).is_some_and(|path| Path::new(&path) != installed)
}

/// Finds libtorch in the order of `torch-sys` and checks it; `installed` is where `cargo xtask libtorch` puts it.
///
/// # Errors
/// One sentence: what is needed, what was looked at, what was found, what to do.
pub fn find(installed: &Path) -> Result<Libtorch, String> {
    let required = required();
    let (looked_at, fix, folders) = if env::var_os(USE_PYTORCH).is_some() {
        let fix = format!("`pip install torch=={required}`, or unset {USE_PYTORCH} and run `cargo xtask libtorch`");
        (format!("{USE_PYTORCH} is set and {}", python().display()), fix, python_folders())
    } else if let Some(path) = env::var_os(LIBTORCH).map(PathBuf::from) {
        let variable = |name| env::var_os(name).map(PathBuf::from);
        let include = variable(LIBTORCH_INCLUDE).unwrap_or_else(|| path.clone()).join("include");
        let lib = variable(LIBTORCH_LIB).unwrap_or_else(|| path.clone()).join("lib");
        let fix = if path == installed {
            "run `cargo xtask libtorch`".to_owned()
        } else {
            format!("let {LIBTORCH} name version {required}, or unset it and run `cargo xtask libtorch`")
        };
        (format!("{LIBTORCH}={}", path.display()), fix, Ok((vec![include], lib)))
    } else {
        let fix = format!("set {LIBTORCH} to the folder of version {required}, as `cargo xtask libtorch` installs it");
        let system = (vec![PathBuf::from("/usr/include")], PathBuf::from("/usr/lib"));
        (format!("{LIBTORCH} is not set and /usr"), fix, Ok(system))
    };
    folders.and_then(|(include, lib)| check(&include, lib)).map_err(|found| {
        format!("attn-ref with feature `torch` needs libtorch {required}, but {looked_at} {found}: {fix}")
    })
}

/// The interpreter that `torch-sys` asks.
fn python() -> &'static Path {
    Path::new(if env::var_os(VIRTUAL_ENV).is_some() { "python" } else { "python3" })
}

/// The folders of headers and the one of libraries of the interpreter's torch.
fn python_folders() -> Result<(Vec<PathBuf>, PathBuf), String> {
    const SCRIPT: &str = "from torch.utils import cpp_extension as c
for path in c.include_paths(): print('include', path)
for path in c.library_paths(): print('lib', path)";
    let output =
        Command::new(python()).args(["-c", SCRIPT]).output().map_err(|error| format!("cannot be run ({error})"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(format!("has no PyTorch ({})", stderr.trim().lines().last().unwrap_or("no reason given")));
    }
    let stdout = String::from_utf8_lossy(&output.stdout);
    let folders = |kind: &str| -> Vec<PathBuf> {
        stdout.lines().filter_map(|line| line.strip_prefix(kind)?.strip_prefix(' ').map(PathBuf::from)).collect()
    };
    // `torch-sys` takes the last one.
    let lib = folders("lib").pop().ok_or("names no folder of libraries")?;
    Ok((folders("include"), lib))
}

/// The libtorch of these folders, or what is wrong with it.
fn check(include: &[PathBuf], lib: PathBuf) -> Result<Libtorch, String> {
    let mut headers = include.iter().flat_map(|folder| VERSION_HEADERS.map(|header| folder.join(header)));
    let (header, version) = headers
        .find_map(|header| {
            let version = version(&fs::read_to_string(&header).ok()?)?;
            Some((header, version))
        })
        .ok_or_else(|| format!("has no header with a version (include/{})", VERSION_HEADERS[0]))?;
    if version != required() && env::var_os(BYPASS_VERSION_CHECK).is_none() {
        return Err(format!("has version {version}"));
    }
    if !LIBRARIES.iter().any(|name| lib.join(name).exists()) {
        return Err(format!("has no {} in {}", LIBRARIES[0], lib.display()));
    }
    Ok(Libtorch { version, header, lib })
}

/// `MAJOR.MINOR.PATCH` from the macros of a header.
fn version(header: &str) -> Option<String> {
    let number = |part: &str| {
        let number = header.lines().find_map(|line| line.strip_prefix("#define TORCH_VERSION_")?.strip_prefix(part))?;
        number.trim().parse::<u32>().ok()
    };
    Some(format!("{}.{}.{}", number("MAJOR ")?, number("MINOR ")?, number("PATCH ")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pinned_version_has_three_numbers() {
        let numbers: Vec<_> = required().split('.').map(str::parse::<u32>).collect();
        assert!(matches!(numbers[..], [Ok(_), Ok(_), Ok(_)]), "{}", required());
    }

    #[test]
    fn a_header_has_the_version() {
        let header = "#pragma once\n\n#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 13\n\
                      #define TORCH_VERSION_PATCH 1\n#define TORCH_VERSION_ABI_TAG 0\n";
        assert_eq!(version(header).as_deref(), Some("2.13.1"));
        assert_eq!(version("#include <torch/headeronly/version.h>"), None);
    }
    #[test]
    fn a_folder_is_judged_by_its_headers_and_its_library() {
        let folder = env::temp_dir().join(format!("attn-libtorch-{}", std::process::id()));
        let (include, lib) = (folder.join("include"), folder.join("lib"));
        let found = || check(&[folder.clone(), include.clone()], lib.clone()).map(|libtorch| libtorch.version);
        let write = |file: PathBuf, content: &str| {
            fs::create_dir_all(file.parent().expect("a folder"))
                .and_then(|()| fs::write(file, content))
                .expect("writable");
        };
        let header = |version: &str| {
            let [major, minor, patch] = version.split('.').collect::<Vec<_>>()[..] else { panic!("{version}") };
            format!(
                "#define TORCH_VERSION_MAJOR {major}\n#define TORCH_VERSION_MINOR {minor}\n\
                 #define TORCH_VERSION_PATCH {patch}\n"
            )
        };
        assert_eq!(found(), Err("has no header with a version (include/torch/headeronly/version.h)".to_owned()));
        // Where older versions have it.
        write(include.join(VERSION_HEADERS[1]), &header("1.13.1"));
        assert_eq!(found(), Err("has version 1.13.1".to_owned()));
        write(include.join(VERSION_HEADERS[0]), &header(required()));
        assert_eq!(found(), Err(format!("has no libtorch.so in {}", lib.display())));
        write(lib.join("libtorch.so"), "");
        assert_eq!(found(), Ok(required().to_owned()));
        fs::remove_dir_all(folder).expect("removable");
    }
}

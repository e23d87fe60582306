//! Peano, mlir-aie and `xclbinutil`: where they are, and which they are.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::BuildError;

/// The versions that the project was written for: `toolchain.lock` at the root of the repository.
pub const LOCK: &str = include_str!("../../toolchain.lock");

const PEANO: &str =
    "python3 -m pip install llvm-aie -f https://github.com/Xilinx/llvm-aie/releases/expanded_assets/nightly";
const MLIR_AIE: &str =
    "python3 -m pip install mlir_aie -f https://github.com/Xilinx/mlir-aie/releases/expanded_assets/latest-wheels-3";

const XRT: &str = "it comes with XRT: apt-get install libxrt-utils (2.21 or later), or . /opt/xilinx/xrt/setup.sh";

/// What is run of Peano. What `aiecc` does not find there it takes from `PATH`, where it is no compiler for an NPU.
const PEANO_TOOLS: [&str; 5] = ["bin/clang++", "bin/clang", "bin/opt", "bin/llc", "bin/ld.lld"];

/// The tools of a build.
#[derive(Clone, Debug)]
pub struct Toolchain {
    /// Where Peano is installed: `PEANO_INSTALL_DIR`, or the package `llvm-aie` of a Python environment.
    pub peano: PathBuf,
    /// mlir-aie's compiler: in `PATH`, or in the package `mlir_aie`.
    pub aiecc: PathBuf,
    /// The folder that has `aie_api/aie.hpp`.
    pub headers: PathBuf,
    /// What Peano's compiler says of itself.
    pub peano_version: String,
    /// What `aiecc` does.
    pub aiecc_version: String,
    /// What `xclbinutil` does, which `aiecc` makes the container with: in `PATH`, or beside `aiecc`.
    pub xclbinutil_version: String,
}

/// A version that is pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pinned<'a> {
    /// `llvm-aie` or `mlir-aie`.
    pub tool: &'a str,
    /// A part of what the tool says of its version.
    pub version: &'a str,
}

impl Toolchain {
    /// Finds the tools.
    ///
    /// # Errors
    /// [`BuildError::Missing`]: which one, where it was looked for, and where it is had.
    pub fn find() -> Result<Self, BuildError> {
        let packages = packages();
        let in_packages = |name: &str, file: &str| {
            packages.iter().map(|folder| folder.join(name)).find(|folder| folder.join(file).is_file())
        };
        let where_packages = |name: &str| {
            let folders: Vec<_> = packages.iter().map(|folder| folder.join(name).display().to_string()).collect();
            if folders.is_empty() { "any Python environment".to_owned() } else { folders.join(", ") }
        };
        let folder = env::var_os("PEANO_INSTALL_DIR").filter(|value| !value.is_empty());
        let (peano, looked) = if let Some(folder) = folder {
            let looked = format!("PEANO_INSTALL_DIR={}", folder.display());
            (Some(PathBuf::from(folder)), looked)
        } else {
            let looked = format!("PEANO_INSTALL_DIR (not set), {}", where_packages("llvm-aie"));
            (in_packages("llvm-aie", "bin/clang++"), looked)
        };
        let has = |tool: &&str| peano.as_ref().is_some_and(|folder| folder.join(tool).is_file());
        if let Some(tool) = PEANO_TOOLS.iter().find(|tool| !has(tool)) {
            let tool = format!("Peano's {tool}");
            return Err(BuildError::Missing { tool, looked, install: PEANO, version: pin("llvm-aie") });
        }
        // They are run in another folder than this one.
        let absolute = |path: PathBuf| std::path::absolute(&path).map_err(BuildError::file(&path));
        let peano = absolute(peano.unwrap_or_default())?;
        let path = env::var_os("PATH").unwrap_or_default();
        let in_path = env::split_paths(&path).map(|folder| folder.join("aiecc")).find(|file| file.is_file());
        let in_package = || in_packages("mlir_aie", "bin/aiecc").map(|folder| folder.join("bin/aiecc"));
        let aiecc = in_path.or_else(in_package).ok_or_else(|| BuildError::Missing {
            tool: "aiecc".to_owned(),
            looked: format!("PATH, {}", where_packages("mlir_aie")),
            install: MLIR_AIE,
            version: pin("mlir-aie"),
        })?;
        let aiecc = absolute(aiecc)?;
        // As installed: bin/aiecc, include/aie_api.
        let beside = aiecc.canonicalize().unwrap_or_else(|_| aiecc.clone());
        let beside = beside.ancestors().nth(2).map(|folder| folder.join("include"));
        let has_headers = |folder: &PathBuf| folder.join("aie_api/aie.hpp").is_file();
        let in_package = in_packages("mlir_aie", "include/aie_api/aie.hpp").map(|folder| folder.join("include"));
        let headers =
            beside.iter().cloned().chain(in_package).find(has_headers).ok_or_else(|| BuildError::Missing {
                tool: "aie_api/aie.hpp".to_owned(),
                looked: beside.map_or_else(|| "no folder".to_owned(), |folder| folder.display().to_string()),
                install: MLIR_AIE,
                version: pin("mlir-aie"),
            })?;
        let xclbinutil_version = find_xclbinutil(&path, &aiecc)?;
        let unknown = |version: Option<String>| version.unwrap_or_else(|| "unknown".to_owned());
        let peano_version = unknown(version(&peano.join("bin/clang++"), "--version")?);
        let aiecc_version = unknown(version(&aiecc, "--aie-version")?);
        Ok(Self { peano, aiecc, headers, peano_version, aiecc_version, xclbinutil_version })
    }

    /// The names of tools that were not found, to say what would be run.
    #[must_use]
    pub fn unfound() -> Self {
        Self {
            peano: "$PEANO_INSTALL_DIR".into(),
            aiecc: "aiecc".into(),
            headers: "mlir_aie/include".into(),
            peano_version: "unknown".to_owned(),
            aiecc_version: "unknown".to_owned(),
            xclbinutil_version: "unknown".to_owned(),
        }
    }

    /// Peano's compiler.
    #[must_use]
    pub fn clang(&self) -> PathBuf {
        self.peano.join("bin/clang++")
    }

    /// The tools that are of another version than the pinned one, with what they say.
    #[must_use]
    pub fn unpinned(&self) -> Vec<(Pinned<'static>, &str)> {
        pinned()
            .filter_map(|pinned| Some((pinned, self.version(pinned.tool)?)))
            .filter(|(pinned, got)| !got.contains(pinned.version))
            .collect()
    }

    /// The tools that are of a version that others had wrong results with: which, and what is known of it.
    #[must_use]
    pub fn doubtful(&self) -> Vec<(Pinned<'static>, &'static str)> {
        doubtful()
            .filter(|(version, _)| self.version(version.tool).is_some_and(|got| got.contains(version.version)))
            .collect()
    }

    /// What a tool of `toolchain.lock` says of its version.
    fn version(&self, tool: &str) -> Option<&str> {
        match tool {
            "llvm-aie" => Some(&self.peano_version),
            "mlir-aie" => Some(&self.aiecc_version),
            _ => None,
        }
    }
}

/// `tool != version: why` in each line that is no comment.
fn doubtful() -> impl Iterator<Item = (Pinned<'static>, &'static str)> {
    LOCK.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (tool, rest) = line.split_once(" != ")?;
        let (version, why) = rest.split_once(": ")?;
        Some((Pinned { tool, version }, why))
    })
}

/// The version of a tool that is pinned.
fn pin(tool: &str) -> Option<&'static str> {
    pinned().find(|pinned| pinned.tool == tool).map(|pinned| pinned.version)
}

/// `tool = version` in each line that is no comment.
fn pinned() -> impl Iterator<Item = Pinned<'static>> {
    LOCK.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (tool, version) = line.split_once(" = ")?;
        Some(Pinned { tool, version: version.trim() })
    })
}

/// Where Python packages are: those of an active environment, and of `python3`.
fn packages() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    if let Some(environment) = env::var_os("VIRTUAL_ENV") {
        let libraries = fs::read_dir(Path::new(&environment).join("lib")).into_iter().flatten().flatten();
        folders.extend(libraries.map(|library| library.path().join("site-packages")).filter(|folder| folder.is_dir()));
    }
    let paths = Command::new("python3").args(["-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).output();
    if let Ok(output) = paths
        && output.status.success()
    {
        let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders
}

/// What the `xclbinutil` that `aiecc` finds says of its version. Without it `aiecc` makes no container, says nothing, and ends
/// well.
fn find_xclbinutil(path: &OsStr, aiecc: &Path) -> Result<String, BuildError> {
    let aiecc = aiecc.canonicalize().unwrap_or_else(|_| aiecc.to_owned());
    let beside = aiecc.parent().map(Path::to_owned);
    let found =
        env::split_paths(path).chain(beside).map(|folder| folder.join("xclbinutil")).find(|file| file.is_file());
    let tool = "xclbinutil".to_owned();
    let missing = |looked| BuildError::Missing { tool, looked, install: XRT, version: None };
    let Some(found) = found else { return Err(missing(format!("PATH, beside {}", aiecc.display()))) };
    // Debian 12 has a script of that name without the program: it does nothing, and ends well.
    version(&found, "--version")?.ok_or_else(|| missing(format!("{} (which says no version)", found.display())))
}

/// The first line of what a tool says of its version.
fn version(program: &Path, argument: &str) -> Result<Option<String>, BuildError> {
    let output = Command::new(program).arg(argument).output().map_err(BuildError::file(program))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned))
}

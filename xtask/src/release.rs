//! What a release needs: licences, sources and bans of everything that is depended on, the compiler that is promised, and packages
//! that build by themselves.

use std::{fs, path::Path};

use crate::{
    checks::{NEEDS_LIBTORCH, tool},
    folders::{cargo_home, remove},
    run::Run,
};

const CARGO_DENY: &str = "0.20.2";

/// One reads recordings, the other makes a header, with crates under the MPL-2.0.
const NOT_HANDED_OUT: [&str; 2] = ["attn-whisper", "xtask"];

/// Workspaces, each with dependencies of its own.
const MANIFESTS: [&str; 4] =
    ["Cargo.toml", "tests/fuzz/Cargo.toml", "tests/embedded/Cargo.toml", "examples/embedded/Cargo.toml"];

/// Packages that are published, each behind those that it depends on.
const PACKAGES: [&str; 7] = ["attn-fixed", "attn-cpu", "attn-libtorch", "attn-npu", "attn-ref", "attn", "attn-c"];

/// `deny.toml`, `rust-version`, and every package built from what would be published of it.
pub(crate) fn check(run: &mut Run) -> Result<(), String> {
    let deny = tool(run, "cargo-deny", CARGO_DENY)?;
    let handed_out = NOT_HANDED_OUT.map(|package| ["--exclude", package]);
    let licenses = ["check", "licenses"];
    run.run(run.command(&deny, &[&["--workspace"], handed_out.as_flattened(), &licenses].concat()))?;
    for manifest in MANIFESTS {
        let graph = ["--workspace", "--locked", "--manifest-path", manifest, "--config", "deny.toml"];
        run.run(run.command(&deny, &[&graph[..], &["check", "bans", "sources"]].concat()))?;
    }
    run.skip(
        "advisories of the dependencies",
        "their list is a download from elsewhere: `cargo deny check advisories`",
    );
    least_compiler(run)?;
    packages_build(run)
}

/// Every package, from what would be published of it and of those that it depends on.
fn packages_build(run: &mut Run) -> Result<(), String> {
    // Cargo takes a version for what it was before: it would build with what it compiled in an earlier call, and with the sources that
    // it unpacked into its home (the registry that it makes of our packages has no host, which its folder's name has before the `-`).
    let target_dir = run.root.join("target/packages");
    remove(&target_dir)?;
    let mut remove_unpacked = run.command("sh", &["-c", r#"rm -rf "$0"/registry/src/-*/attn-*"#]);
    remove_unpacked.arg(cargo_home());
    run.run(remove_unpacked)?;
    let target_dir = target_dir.display().to_string();
    let packages: Vec<_> = PACKAGES.iter().flat_map(|package| ["--package", package]).collect();
    // What is not committed is in the tree that is checked, too.
    let package = ["package", "--locked", "--allow-dirty", "--target-dir", &target_dir];
    run.cargo(&[&package, &packages[..]].concat())
}

/// The compiler that the manifests promise (`rust-version`) builds the workspace: the one that runs this, if it is that one, for then
/// every check of this run says so; else rustup's.
fn least_compiler(run: &mut Run) -> Result<(), String> {
    let manifest = read(&run.root.join("Cargo.toml"))?;
    let version = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).map(|x| x.trim_matches('"'));
    let version = version.ok_or("Cargo.toml has no rust-version")?;
    let output = run.command("rustc", &["--version"]).output().map_err(|error| format!("rustc: {error}"))?;
    let running = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if running.strip_prefix("rustc ").is_some_and(|running| running.starts_with(&format!("{version}."))) {
        println!("{running} is the least compiler that the manifests promise: this run is its check");
        return Ok(());
    }
    let cargo = ["run", version, "cargo"];
    if !run.command("rustup", &[&cargo[..], &["--version"]].concat()).output().is_ok_and(|x| x.status.success()) {
        run.skip(&format!("rust {version}"), &format!("{running} runs this, and rustup has no {version}"));
        return Ok(());
    }
    let target_dir = run.root.join("target/least-compiler").display().to_string();
    let workspace = ["--workspace", "--exclude", NEEDS_LIBTORCH];
    let check = [&["check", "--locked", "--all-targets", "--target-dir", &target_dir], &workspace[..]].concat();
    run.run(run.command("rustup", &[&cargo[..], &check].concat()))
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::PathBuf, process::Command};

    use super::*;

    fn root() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
    }

    /// Those in the folders of a folder.
    fn manifests(folder: &str) -> Vec<String> {
        let folders = fs::read_dir(root().join(folder)).expect("a folder");
        let paths = folders.map(|path| path.expect("listed").path().join("Cargo.toml"));
        paths.filter(|path| path.is_file()).map(|path| path.display().to_string()).collect()
    }

    /// The names before `=` or `.` in some sections of a manifest.
    fn dependencies(manifest: &str, is_section: impl Fn(&str) -> bool) -> BTreeSet<String> {
        let mut is_in = false;
        let mut names = BTreeSet::new();
        for line in read(&root().join(manifest)).expect("a manifest").lines() {
            if line.starts_with('[') {
                is_in = is_section(line);
            } else if is_in
                && let Some(end) = line.find([' ', '.', '='])
                && !line.starts_with('#')
            {
                names.insert(line[..end].to_owned());
            }
        }
        names
    }

    #[test]
    fn every_dependency_has_a_reason() {
        let lists = [
            ("Cargo.toml", "[workspace.dependencies]"),
            ("tests/fuzz/Cargo.toml", "[dependencies]"),
            ("tests/embedded/Cargo.toml", "[build-dependencies]"),
            ("examples/embedded/Cargo.toml", "[dependencies]"),
        ];
        let mut used: BTreeSet<_> =
            lists.into_iter().flat_map(|(path, section)| dependencies(path, |line| line == section)).collect();
        let is_own = |name: &String| name == "attn" || name == "attention" || name.starts_with("attn-");
        used.retain(|name| !is_own(name));
        // The members have no others.
        for member in
            ["crates", "examples", "tests", "."].into_iter().flat_map(manifests).chain(["Cargo.toml".to_owned()])
        {
            for name in dependencies(&member, |line| line.ends_with("dependencies]")) {
                assert!(is_own(&name) || used.contains(&name), "{member}: {name} is no dependency of the workspace");
            }
        }
        let page = read(&root().join("docs/dependencies.md")).expect("a page");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        let reasoned = rows.inspect(|(name, row)| assert!(!row.ends_with("| |"), "{name} has no reason"));
        assert_eq!(reasoned.map(|(name, _)| name.to_owned()).collect::<BTreeSet<_>>(), used);
    }

    #[test]
    fn every_folder_has_a_place_in_the_architecture() {
        let files = Command::new("git").args(["ls-files"]).current_dir(root()).output().expect("git");
        assert!(files.status.success(), "{}", String::from_utf8_lossy(&files.stderr));
        let page = read(&root().join("ARCHITECTURE.md")).expect("a page");
        // Of a row, the first folder, and those below it.
        let named: BTreeSet<_> = page
            .lines()
            .filter(|line| line.starts_with("| `"))
            .flat_map(|row| {
                let mut folders = row.split('`').skip(1).step_by(2).filter_map(|name| name.strip_suffix('/'));
                let first = folders.next().map(PathBuf::from).unwrap_or_default();
                folders.map(|folder| first.join(folder)).chain([first.clone()]).collect::<Vec<_>>()
            })
            .collect();
        for file in String::from_utf8(files.stdout).expect("UTF-8").lines() {
            let folder = Path::new(file).parent().expect("a file");
            let is_named = folder == Path::new("") || named.contains(folder);
            assert!(is_named, "{} is not in ARCHITECTURE.md", folder.display());
        }
        for folder in named {
            assert!(root().join(&folder).is_dir(), "ARCHITECTURE.md: there is no {}", folder.display());
        }
    }
}

//! A Debian with XRT, its compilers and its tools, below `target/`: nothing of it is installed on this machine.

use std::{fs, path::PathBuf, process::Command};

use crate::{
    folders::{cargo_home, remove},
    packages,
    run::Run,
};

/// Where it comes from: a stable release, and what was backported to it.
const SUITES: [&str; 2] = ["trixie", "trixie-backports"];
const MIRROR: &str = "http://deb.debian.org/debian";

/// What is in it: XRT 2.21 or later with its NPU plug-in and tools, the driver's interface, compilers, libclang, and a shell.
const PACKAGES: &str = "libxrt-dev,libxrt-npu2,libxrt-utils,libxrt-utils-npu,uuid-dev,linux-libc-dev,g++,libclang1-19,\
                        libclang-common-19-dev,base-files,libc-bin,dash,bash,coreutils,grep,sed";

/// What of it is backported.
const BACKPORTED: &str = "*xrt* linux-libc-dev";

/// The root folder.
pub(crate) struct Debian {
    root: PathBuf,
}

impl Debian {
    /// Makes it, if it is not there as it should be. None, and listed as skipped, where it cannot be had or entered.
    pub(crate) fn find(run: &mut Run, what: &str) -> Result<Option<Self>, String> {
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            run.skip(what, "XRT is run on x86-64 Linux only");
            return Ok(None);
        }
        let debian = Self { root: run.root.join("target/debian") };
        let stamp = debian.root.join("attn-packages");
        let contents = format!("{} {PACKAGES} {BACKPORTED}", SUITES.join(" "));
        if fs::read_to_string(&stamp).is_ok_and(|found| found == contents) {
            return Ok(debian.enters(run, what));
        }
        if !packages::has(run, "mmdebstrap", "mmdebstrap") {
            run.skip(what, "there is no mmdebstrap, and `apt-get install mmdebstrap` failed (it needs root)");
            return Ok(None);
        }
        // Beside it first: it is whole, or not there.
        let new = run.root.join("target/debian.new");
        for folder in [&new, &debian.root] {
            remove(folder)?;
        }
        let pin = format!(
            r#"mkdir -p "$1/etc/apt/preferences.d"; printf "Package: {BACKPORTED}\nPin: release n={}\nPin-Priority: 900\n" > "$1/etc/apt/preferences.d/backported""#,
            SUITES[1]
        );
        let path = new.display().to_string();
        let mut command =
            run.command("mmdebstrap", &["--mode=chrootless", "--variant=extract", &format!("--include={PACKAGES}")]);
        command.arg("--aptopt=APT::Install-Recommends \"false\"");
        // Signed all the same, by a mirror that may lag behind.
        command.arg("--aptopt=Acquire::Check-Valid-Until \"false\"").arg(format!("--setup-hook={pin}"));
        command.args([SUITES[0], &path]).args(SUITES.map(|suite| format!("deb {MIRROR} {suite} main")));
        if run.run(command).is_err() {
            run.skip(what, "`mmdebstrap`, for a Debian with XRT, failed (is its mirror out of reach?)");
            return Ok(None);
        }
        let wrong = |error| format!("{}: {error}", new.display());
        fs::write(new.join("attn-packages"), contents).map_err(wrong)?;
        fs::rename(&new, &debian.root).map_err(wrong)?;
        Ok(debian.enters(run, what))
    }

    /// Whether this user may enter it, which takes a mount namespace.
    fn enters(self, run: &mut Run, what: &str) -> Option<Self> {
        match self.command(run, "true").output() {
            Ok(output) if output.status.success() => Some(self),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
                run.skip(what, &format!("a mount namespace cannot be entered, as root or in a user namespace: {said}"));
                None
            }
            Err(error) => {
                run.skip(what, &format!("`unshare` of util-linux: {error}"));
                None
            }
        }
    }

    /// A command in it, in the workspace. The workspace, cargo's cache and the compiler are where they are outside.
    pub(crate) fn command(&self, run: &Run, program: &str) -> Command {
        let mut command = run.command("unshare", &["--mount"]);
        if !is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        let toolchain = toolchain(run);
        command.args(["sh", "xtask/enter-debian.sh"]);
        command.arg(&self.root).arg(&run.root).arg(cargo_home()).arg(&toolchain).args(["--", program]);
        command.env("PATH", format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", toolchain.join("bin").display()));
        command.env("CARGO_HOME", cargo_home()).env("CARGO_TARGET_DIR", run.root.join("target/emulated-npu"));
        // What cargo, which runs this, means for itself.
        command.env_remove("RUSTC").env_remove("CARGO");
        command
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|this| std::os::unix::fs::MetadataExt::uid(&this) == 0)
}

/// Where the compiler of this workspace is installed.
fn toolchain(run: &Run) -> PathBuf {
    let output = run.command("rustc", &["--print", "sysroot"]).output();
    output.map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())).unwrap_or_default()
}

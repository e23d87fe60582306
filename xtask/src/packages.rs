//! Debian's packages.

use crate::run::Run;

/// Installs packages, as root on Debian; whether that went well. Another installation that is under way is waited for. Removes nothing:
/// Debian's Rust compilers exclude each other.
pub(crate) fn install(run: &mut Run, packages: &str) -> bool {
    let apt = "apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3";
    let install = format!("{apt} update && {apt} install -y --no-remove --no-install-recommends {packages}");
    run.run(run.command("sh", &["-c", &install])).is_ok()
}

/// Whether a program starts, which is installed first where it is missing and may be.
pub(crate) fn has(run: &mut Run, program: &str, packages: &str) -> bool {
    starts(run, program) || (install(run, packages) && starts(run, program))
}

/// Whether a program starts.
pub(crate) fn starts(run: &Run, program: &str) -> bool {
    run.command(program, &["--version"]).output().is_ok_and(|output| output.status.success())
}

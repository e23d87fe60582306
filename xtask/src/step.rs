//! Counts the instructions of a program by stepping through them, for instruction sets that no emulator of Debian has.
//!
//! The kernel and the CPU do it for whatever the CPU can run, some ten thousand instructions a second.

use std::process::{Child, Command};

use nix::{
    errno::Errno,
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::{
        ptrace::{self, Options},
        signal::Signal,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

/// Counts that are tried before none is believed.
const ATTEMPTS: u32 = 3;

/// What stepping found out.
enum Counted {
    /// Every instruction was seen.
    All(u64),
    /// The program was at its end before it was seen to get there.
    Some(u64),
    /// The system forbids to trace it.
    Forbidden,
}

/// The instructions between the two points at which the program stops itself; none where the system forbids to trace it.
///
/// On a virtual machine a step is lost now and then, once in some ten million, and the program runs on by itself: then it is
/// counted again.
pub(crate) fn count(command: &mut Command) -> Result<Option<u64>, String> {
    // Both on one CPU, three times as fast: the kernel waits for a program that is on another one.
    let this = Pid::from_raw(0);
    let all = sched_getaffinity(this).map_err(failed("CPUs"))?;
    let first = (0..CpuSet::count()).find(|&cpu| all.is_set(cpu) == Ok(true)).ok_or("no CPU")?;
    let mut one = CpuSet::new();
    one.set(first).map_err(failed("CPUs"))?;
    sched_setaffinity(this, &one).map_err(failed("CPUs"))?;
    let count = count_here(command);
    sched_setaffinity(this, &all).map_err(failed("CPUs"))?;
    count
}

fn failed(what: &str) -> impl Fn(Errno) -> String {
    move |error| format!("{what}: {error}")
}

fn count_here(command: &mut Command) -> Result<Option<u64>, String> {
    for _ in 0..ATTEMPTS {
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let counted = count_child(&child);
        // It has done its work, or never will.
        _ = child.kill();
        _ = child.wait();
        match counted? {
            Counted::All(count) => return Ok(Some(count)),
            Counted::Some(count) => println!("lost after {count} instructions, counted again"),
            Counted::Forbidden => return Ok(None),
        }
    }
    Err(format!("a step was lost in each of {ATTEMPTS} attempts"))
}

fn count_child(child: &Child) -> Result<Counted, String> {
    let pid = Pid::from_raw(child.id().cast_signed());
    let address = || ptrace::getregs(pid).map(|registers| registers.rip).map_err(failed("registers"));
    match waitpid(pid, Some(WaitPidFlag::WUNTRACED)).map_err(failed("waiting"))? {
        WaitStatus::Stopped(_, Signal::SIGSTOP) => {}
        status => return Err(format!("it was to stop itself: {status:?}")),
    }
    match ptrace::seize(pid, Options::PTRACE_O_EXITKILL) {
        Err(Errno::EPERM | Errno::ENOSYS) => return Ok(Counted::Forbidden),
        result => result.map_err(failed("ptrace"))?,
    }
    waitpid(pid, None).map_err(failed("waiting"))?;
    let (mut count, mut before) = (0, address()?);
    loop {
        ptrace::step(pid, None).map_err(failed("a step"))?;
        let status = waitpid(pid, None).map_err(failed("waiting"))?;
        let now = match status {
            WaitStatus::Stopped(_, Signal::SIGTRAP | Signal::SIGSTOP) => address()?,
            _ => return Err(format!("after {count} instructions: {status:?}")),
        };
        if status == WaitStatus::Stopped(pid, Signal::SIGSTOP) {
            // The step that raised the signal is seen before the signal.
            return Ok(if now == before { Counted::All(count) } else { Counted::Some(count) });
        }
        // An instruction that repeats itself is one.
        count += u64::from(now != before);
        before = now;
    }
}

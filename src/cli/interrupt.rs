//! Ctrl-C, and the other signals that ask to end.

use std::{
    process,
    sync::{Mutex, PoisonError},
};

/// Exit status after a signal.
const INTERRUPTED: i32 = 130;

/// Held while a signal has to wait.
static BUSY: Mutex<()> = Mutex::new(());

/// From now on a signal ends the process as soon as nothing is [finished](finish) first.
pub(super) fn handle() -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(|| {
        let _idle = BUSY.lock();
        process::exit(INTERRUPTED);
    })
}

/// Does something that leaves a part of a file behind if it is ended within.
pub(super) fn finish<T>(work: impl FnOnce() -> T) -> T {
    let _busy = BUSY.lock().unwrap_or_else(PoisonError::into_inner);
    work()
}

//! Ctrl-C, and the other signals that ask to end.

use std::{
    process,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// Exit status after a signal.
pub(super) const INTERRUPTED: u8 = 130;

/// A signal has asked to end.
static ASKED: AtomicBool = AtomicBool::new(false);

/// Held while a signal has to wait.
static BUSY: Mutex<()> = Mutex::new(());

/// From now on a signal ends the process as soon as nothing is [finished](finish) first.
pub(super) fn handle() -> Result<(), String> {
    let handled = ctrlc::set_handler(|| {
        ASKED.store(true, Relaxed);
        let _idle = BUSY.lock();
        process::exit(INTERRUPTED.into());
    });
    handled.map_err(|error| format!("threads: cannot start the one that waits for signals: {error}"))
}

/// Whether a signal has asked to end, for what takes long to finish.
pub(super) fn is_asked() -> bool {
    ASKED.load(Relaxed)
}

/// Does something that leaves a part of a file behind if it is ended within.
pub(super) fn finish<T>(work: impl FnOnce() -> T) -> T {
    let _busy = BUSY.lock().unwrap_or_else(PoisonError::into_inner);
    work()
}

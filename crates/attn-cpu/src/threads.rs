//! The threads that heads are computed on.

use core::{error::Error, fmt, num::NonZeroUsize};
use std::{
    env,
    string::{String, ToString as _},
    sync::OnceLock,
    thread,
};

use rayon::ThreadPoolBuilder;

/// Most threads that are started; a system that is asked for many more than it has cores is busy with starting them.
pub const MAX_THREADS: usize = 1024;

/// Why there are no threads.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ThreadsError {
    /// `RAYON_NUM_THREADS` is more than [`MAX_THREADS`].
    TooMany {
        /// What it is.
        got: usize,
    },
    /// They did not start: the system has not so many, or somebody else started them.
    Start(String),
}

impl fmt::Display for ThreadsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany { got } => write!(f, "threads: got RAYON_NUM_THREADS={got}, expected at most {MAX_THREADS}"),
            Self::Start(why) => write!(f, "threads: cannot start them: {why}; fewer are RAYON_NUM_THREADS=N"),
        }
    }
}

impl Error for ThreadsError {}

/// Starts the threads of rayon's global pool, as many as `RAYON_NUM_THREADS` in the environment says, or else as there are cores.
///
/// They start by themselves when they are first needed, but that panics where it cannot be done. A program that builds the pool
/// itself has no use for this. When called again, it does nothing but say the same.
///
/// # Errors
/// [`ThreadsError`], every time.
pub fn start_threads() -> Result<(), ThreadsError> {
    static STARTED: OnceLock<Result<(), ThreadsError>> = OnceLock::new();
    let start = || {
        // 0, or what is no number, is no wish.
        let asked =
            env::var("RAYON_NUM_THREADS").ok().and_then(|threads| threads.parse().ok()).filter(|&asked| asked > 0);
        let threads =
            asked.unwrap_or_else(|| thread::available_parallelism().map_or(1, NonZeroUsize::get).min(MAX_THREADS));
        if threads > MAX_THREADS {
            return Err(ThreadsError::TooMany { got: threads });
        }
        ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()
            .map_err(|error| ThreadsError::Start(error.to_string()))
    };
    STARTED.get_or_init(start).clone()
}

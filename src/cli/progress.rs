//! A bar on stderr for work that takes its time, when somebody looks.

use std::{
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Work that is done sooner shows no bar.
const PATIENCE: Duration = Duration::from_secs(1);

/// Counts the queries of one kind of work.
pub(super) struct Bar {
    drawn: ProgressBar,
    start: Instant,
    terminal: bool,
}

impl Bar {
    pub(super) fn new(what: &str, queries: usize) -> Self {
        let bar = ProgressBar::with_draw_target(Some(queries as u64), ProgressDrawTarget::hidden());
        let style = ProgressStyle::with_template("{msg} [{wide_bar}] {pos}/{len} queries, {eta} left");
        bar.set_style(style.expect("a valid template").progress_chars("=> "));
        bar.set_message(what.to_owned());
        Self { drawn: bar, start: Instant::now(), terminal: io::stderr().is_terminal() }
    }

    /// So many queries more are done.
    pub(super) fn add(&self, queries: usize) {
        self.drawn.inc(queries as u64);
        if self.terminal && self.drawn.is_hidden() && self.start.elapsed() > PATIENCE {
            self.drawn.set_draw_target(ProgressDrawTarget::stderr());
        }
    }
}

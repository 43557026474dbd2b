//! How far the bring-up and the building of a TD are.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressStyle};
use td_host::host::Progress;
use td_host::td::BuildProgress;

/// Progress on stderr, where that is a terminal.
pub(super) struct Bars {
    bar: ProgressBar,
}

impl Bars {
    pub(super) fn new() -> Self {
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{msg:24} {wide_bar} {percent:>3}%") {
            bar.set_style(style);
        }
        Self { bar }
    }

    pub(super) fn bring_up(&self, progress: Progress) {
        match progress {
            Progress::Initialised => self.bar.set_message("module initialised"),
            Progress::Configured => self.bar.set_message("memory configured"),
            Progress::Memory { done, total } => {
                self.bar.set_message("initialising memory");
                self.bar.set_length(total);
                self.bar.set_position(done);
            }
        }
    }

    pub(super) fn build(&self, progress: BuildProgress) {
        self.bar.set_message("loading the image");
        self.bar.set_length(progress.added);
        self.bar.set_position(progress.added);
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

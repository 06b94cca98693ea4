//! What does the user see while a statement runs? A bar where the work is counted, a spinner where it is not.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use mvvd_query::Progress;

/// How often the waiting shell looks whether something should be shown.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What is over sooner shows no bar,
const BAR_AFTER: Duration = Duration::from_millis(300);
/// or no spinner.
const SPINNER_AFTER: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(120);

/// The line on stderr; indicatif shows nothing where that is no terminal.
#[derive(Default)]
pub(crate) struct Feedback {
    line: Mutex<Option<Line>>,
}

struct Line {
    bar: ProgressBar,
    start: Instant,
    shown: bool,
}

impl Feedback {
    /// Shows what is due for a statement that has been running for `time`: a bar, or if there is none a spinner.
    pub(crate) fn look(&self, time: Duration) {
        let mut line = self.line();
        match &mut *line {
            Some(line) if !line.shown && line.start.elapsed() >= BAR_AFTER => line.show(),
            None if time >= SPINNER_AFTER => {
                let spinner = line.insert(Line::new(None, "running", "{spinner} {msg} {elapsed}  (Ctrl-C cancels)"));
                spinner.bar.set_elapsed(time);
                spinner.show();
            }
            _ => {}
        }
    }

    /// Takes whatever is shown away: results are coming, or the statement is over.
    pub(crate) fn clear(&self) {
        self.replace(None);
    }

    fn replace(&self, line: Option<Line>) {
        if let Some(old) = std::mem::replace(&mut *self.line(), line) {
            old.bar.finish_and_clear();
        }
    }

    fn line(&self) -> MutexGuard<'_, Option<Line>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for Feedback {
    fn start(&self, label: &str, total: Option<u64>) {
        let style = match total {
            Some(_) => "{msg} {wide_bar} {human_pos}/{human_len} rows, {eta} left",
            None => "{spinner} {msg} {human_pos} rows, {per_sec}",
        };
        self.replace(Some(Line::new(total, label, style)));
    }

    fn advance(&self, rows: u64) {
        if let Some(line) = &*self.line() {
            line.bar.inc(rows);
        }
    }

    fn finish(&self) {
        self.clear();
    }
}

impl Line {
    /// A line that is not shown yet.
    fn new(total: Option<u64>, message: &str, template: &str) -> Self {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
        // The templates are constants; should one ever be wrong, indicatif's own is as good.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(message.to_owned());
        Self { bar, start: Instant::now(), shown: false }
    }

    fn show(&mut self) {
        self.bar.set_draw_target(ProgressDrawTarget::stderr());
        self.bar.enable_steady_tick(TICK);
        self.shown = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_come_and_go() {
        let feedback = Feedback::default();
        let rows = || feedback.line().as_ref().map(|line| (line.bar.position(), line.shown));
        feedback.advance(1);
        feedback.look(Duration::ZERO);
        assert_eq!(rows(), None);
        feedback.start("COPY t", Some(10));
        feedback.advance(4);
        // Too early for a bar, whatever the statement did before.
        feedback.look(SPINNER_AFTER);
        assert_eq!(rows(), Some((4, false)));
        feedback.start("COPY t", None);
        assert_eq!(rows(), Some((0, false)));
        feedback.finish();
        assert_eq!(rows(), None);
        feedback.look(SPINNER_AFTER);
        assert_eq!(rows(), Some((0, true)));
        feedback.clear();
        assert_eq!(rows(), None);
    }
}

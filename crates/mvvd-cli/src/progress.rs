//! What does the user see while a statement runs? A bar where the work is counted, a spinner where it is not.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use mvvd_query::Progress;

/// How long a statement runs before a spinner shows.
pub(crate) const SPINNER_AFTER: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(120);

/// The line on stderr; indicatif shows nothing where that is no terminal.
#[derive(Default)]
pub(crate) struct Feedback {
    bar: Mutex<Option<ProgressBar>>,
}

impl Feedback {
    /// Shows a spinner, unless a bar is there already.
    pub(crate) fn spin(&self) {
        let mut bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        if bar.is_none() {
            *bar = Some(new(None, "running", "{spinner} {msg} {elapsed}  (Ctrl-C cancels)"));
        }
    }

    /// Takes whatever is shown away: results are coming, or the statement is over.
    pub(crate) fn clear(&self) {
        self.replace(None);
    }

    fn replace(&self, bar: Option<ProgressBar>) {
        let old = std::mem::replace(&mut *self.bar.lock().unwrap_or_else(PoisonError::into_inner), bar);
        if let Some(old) = old {
            old.finish_and_clear();
        }
    }
}

impl Progress for Feedback {
    fn start(&self, label: &str, total: Option<u64>) {
        self.clear();
        let style = match total {
            Some(_) => "{msg} {wide_bar} {human_pos}/{human_len} rows, {eta} left",
            None => "{spinner} {msg} {human_pos} rows, {per_sec}",
        };
        self.replace(Some(new(total, label, style)));
    }

    fn advance(&self, rows: u64) {
        if let Some(bar) = &*self.bar.lock().unwrap_or_else(PoisonError::into_inner) {
            bar.inc(rows);
        }
    }

    fn finish(&self) {
        self.clear();
    }
}

fn new(total: Option<u64>, message: &str, template: &str) -> ProgressBar {
    let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    // The templates are constants; should one ever be wrong, indicatif's own is as good.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(message.to_owned());
    bar.enable_steady_tick(TICK);
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_well_formed_and_bars_come_and_go() {
        let feedback = Feedback::default();
        feedback.advance(1);
        feedback.start("COPY t", Some(10));
        feedback.advance(4);
        feedback.spin();
        assert_eq!(feedback.bar.lock().unwrap().as_ref().map(ProgressBar::position), Some(4));
        feedback.start("COPY t", None);
        assert_eq!(feedback.bar.lock().unwrap().as_ref().map(ProgressBar::position), Some(0));
        feedback.finish();
        assert!(feedback.bar.lock().unwrap().is_none());
        feedback.spin();
        feedback.clear();
        assert!(feedback.bar.lock().unwrap().is_none());
    }
}

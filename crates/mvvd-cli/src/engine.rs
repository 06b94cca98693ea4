//! When is the database opened? In the background while the prompt comes up; who needs it first waits for it.

use std::cell::{OnceCell, RefCell};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use mvvd_core::{Error, Result};

use mvvd_query::{Config, Mvvd, Progress, Session};

/// The one session of this shell.
pub(crate) struct Engine {
    opening: RefCell<Option<JoinHandle<Result<Session>>>>,
    session: OnceCell<Session>,
}

impl Engine {
    /// Starts to open the database; `progress` hears about long statements.
    pub(crate) fn open(config: Config, progress: Option<Arc<dyn Progress>>) -> Self {
        let opening = thread::spawn(move || {
            let session = Mvvd::open(config)?.session();
            if let Some(progress) = progress {
                session.set_progress(progress);
            }
            Ok(session)
        });
        Self { opening: RefCell::new(Some(opening)), session: OnceCell::new() }
    }

    /// The session, or why there is none.
    pub(crate) fn session(&self) -> Result<&Session> {
        if let Some(session) = self.session.get() {
            return Ok(session);
        }
        let Some(opening) = self.opening.take() else {
            return Err(Error::internal("the database could not be opened"));
        };
        let session = opening.join().map_err(|_| Error::internal("the database could not be opened"))??;
        Ok(self.session.get_or_init(|| session))
    }
}

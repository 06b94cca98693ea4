//! Which session does a call belong to? That of its cookie, or one of its own.
//!
//! gRPC calls carry no connection. A call without a cookie gets a fresh session, and its answer a cookie; a client that
//! sends it back keeps its settings and the statements of SQL's PREPARE from call to call, another one never sees them
//! again. Only sessions that a client came back for, or that a statement changed, are kept.

use std::sync::Arc;
use std::time::Duration;

use mvvd_query::{Mvvd, Session};
use tonic::metadata::{MetadataMap, MetadataValue};
use uuid::Uuid;

use super::registry::{Bounds, Registry};

/// Name of the cookie, as Flight clients know it.
const COOKIE: &str = "arrow_flight_session_id";
/// How many sessions are kept, and how long without a call.
const BOUNDS: Bounds = Bounds { values_max: 1_000, bytes_max: usize::MAX, idle: Duration::from_secs(1_800) };

/// The sessions of one server.
pub(crate) struct Sessions {
    db: Mvvd,
    kept: Registry<Session>,
}

/// The session of one call.
#[derive(Clone)]
pub(crate) struct Call {
    sessions: Arc<Sessions>,
    id: Uuid,
    pub(crate) session: Session,
    /// Whether the client has to be told its cookie.
    is_new: bool,
}

impl Sessions {
    pub(crate) fn new(db: Mvvd) -> Self {
        Self { db, kept: Registry::new(BOUNDS, |_| 0) }
    }

    /// The session that the headers of a call name.
    pub(crate) fn of(self: &Arc<Self>, headers: &MetadataMap) -> Call {
        let known = cookie(headers);
        let id = known.unwrap_or_else(Uuid::new_v4);
        let kept = known.and_then(|id| self.kept.with(&id, |session| session.clone()));
        let session = kept.unwrap_or_else(|| {
            let session = self.db.session();
            if known.is_some() {
                self.kept.put(id, session.clone());
            }
            session
        });
        Call { sessions: Arc::clone(self), id, session, is_new: known.is_none() }
    }

    pub(crate) fn sweep(&self) {
        self.kept.sweep();
    }
}

impl Call {
    /// After a statement: what changed the session is there for the next call that has the cookie.
    pub(crate) fn keep(&self, tag: &str) {
        if self.is_new && matches!(tag, "SET" | "RESET" | "PREPARE" | "DEALLOCATE") {
            self.sessions.kept.put(self.id, self.session.clone());
        }
    }

    /// Forgets the session.
    pub(crate) fn close(&self) {
        self.sessions.kept.take(&self.id);
    }

    /// Tells the client its cookie.
    pub(crate) fn mark(&self, headers: &mut MetadataMap) {
        if self.is_new
            && let Ok(value) = MetadataValue::try_from(format!("{COOKIE}={}", self.id))
        {
            headers.insert("set-cookie", value);
        }
    }
}

fn cookie(headers: &MetadataMap) -> Option<Uuid> {
    let cookies = headers.get_all("cookie").iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(name, _)| *name == COOKIE)?;
    Uuid::try_parse(value.trim_matches('"')).ok()
}

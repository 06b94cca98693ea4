//! What can go wrong, and how every layer says so.

use std::error::Error as StdError;
use std::fmt;

/// The result of anything in MVVD that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can do about an error. A new kind only where a caller would do something new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The input is wrong: change the statement or the value.
    Invalid,
    /// The named thing does not exist.
    NotFound,
    /// The named thing exists already.
    AlreadyExists,
    /// A constraint or another writer is in the way: the same statement may succeed on other data.
    Conflict,
    /// Valid, but not offered by this version.
    Unsupported,
    /// A limit (memory, size, depth, time) was reached.
    Exhausted,
    /// The caller cancelled the work.
    Cancelled,
    /// A file or device cannot be used now.
    Unavailable,
    /// Stored bytes are damaged.
    Corrupt,
    /// A bug in MVVD.
    Internal,
}

/// A place in a statement's text, both counted from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: u64,
    /// The character within the line.
    pub column: u64,
}

/// An error: a kind to act on, and a message (lower case, no full stop) that carries the values.
pub struct Error {
    inner: Box<Inner>,
}

struct Inner {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    position: Option<Position>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { inner: Box::new(Inner { kind, message: message.into(), hint: None, position: None, source: None }) }
    }

    /// Wrong input.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// A name that stands for nothing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// A name that is taken.
    pub fn already_exists(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::AlreadyExists, message)
    }

    /// A constraint or another writer is in the way.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }

    /// Valid, but not offered.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// A limit was reached.
    pub fn exhausted(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Exhausted, message)
    }

    /// A bug of ours that must not take the process down.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Adds one sentence that says what to do instead.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.inner.hint = Some(hint.into());
        self
    }

    /// Adds the place in the statement that the error is about.
    #[must_use]
    pub fn at(mut self, position: Position) -> Self {
        self.inner.position = Some(position);
        self
    }

    /// Adds the error that caused this one.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.inner.source = Some(source.into());
        self
    }

    /// Puts `context` and a colon before the message.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.inner.message = format!("{context}: {}", self.inner.message);
        self
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// What happened, with the values.
    pub fn message(&self) -> &str {
        &self.inner.message
    }

    /// What to do instead, where we know.
    pub fn hint(&self) -> Option<&str> {
        self.inner.hint.as_deref()
    }

    /// Where in the statement, where we know.
    pub fn position(&self) -> Option<Position> {
        self.inner.position
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut s = f.debug_struct("Error");
        s.field("kind", &self.inner.kind).field("message", &self.inner.message);
        if let Some(hint) = &self.inner.hint {
            s.field("hint", hint);
        }
        if let Some(position) = &self.inner.position {
            s.field("position", position);
        }
        if let Some(source) = &self.inner.source {
            s.field("source", source);
        }
        s.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source.as_ref().map(|s| &**s as &(dyn StdError + 'static))
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(e: arrow::error::ArrowError) -> Self {
        use arrow::error::ArrowError as A;
        let kind = match &e {
            A::NotYetImplemented(_) => ErrorKind::Unsupported,
            A::MemoryError(_) => ErrorKind::Exhausted,
            A::IoError(..) => ErrorKind::Unavailable,
            A::CDataInterface(_) => ErrorKind::Internal,
            _ => ErrorKind::Invalid,
        };
        let text = e.to_string();
        // Arrow names its own class first ("Cast error: ..."); ours is the kind.
        let message = match text.split_once(": ") {
            Some((head, rest)) if head.ends_with("error") && !rest.is_empty() => rest.to_owned(),
            _ => text,
        };
        Self::new(kind, message).with_source(e)
    }
}

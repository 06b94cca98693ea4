//! Our errors as gRPC statuses.

use arrow_flight::error::FlightError;
use mvvd_core::{Error, ErrorKind};
use tonic::{Code, Status};

/// Longest message, in characters: it travels in a header, and clients limit those.
const MESSAGE_CHARS_MAX: usize = 2_000;

/// The code that makes a client do the right thing.
///
/// A conflict is a key that exists or a constraint: trying the same again does not help, so it is not `ABORTED`, which
/// clients retry.
fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::Invalid => Code::InvalidArgument,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::AlreadyExists => Code::AlreadyExists,
        ErrorKind::Conflict => Code::FailedPrecondition,
        ErrorKind::Unsupported => Code::Unimplemented,
        ErrorKind::Exhausted => Code::ResourceExhausted,
        ErrorKind::Cancelled => Code::Cancelled,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::Corrupt => Code::DataLoss,
        ErrorKind::Internal => Code::Internal,
    }
}

/// An error with its place and hint, in one line.
pub(crate) fn status(error: &Error) -> Status {
    let mut text = error.message().to_owned();
    if let Some(at) = error.position() {
        text.push_str(&format!(" (line {}, column {})", at.line, at.column));
    }
    if let Some(hint) = error.hint() {
        text.push_str(&format!("; hint: {hint}"));
    }
    if text.chars().count() > MESSAGE_CHARS_MAX {
        text = text.chars().take(MESSAGE_CHARS_MAX).chain(['…']).collect();
    }
    Status::new(code(error.kind()), text)
}

/// What went wrong while a client's batches were read.
pub(crate) fn received(error: FlightError) -> Error {
    match error {
        FlightError::Arrow(e) => Error::from(e),
        FlightError::Tonic(status) => {
            let kind = match status.code() {
                Code::Cancelled => ErrorKind::Cancelled,
                Code::OutOfRange | Code::ResourceExhausted => ErrorKind::Exhausted,
                Code::InvalidArgument => ErrorKind::Invalid,
                Code::Unimplemented => ErrorKind::Unsupported,
                _ => ErrorKind::Unavailable,
            };
            Error::new(kind, status.message())
        }
        other => Error::invalid(format!("the batches cannot be read: {other}")),
    }
}

/// An error of arrow-flight itself while an answer is made.
pub(crate) fn from_flight(error: FlightError) -> Status {
    match error {
        FlightError::Tonic(status) => *status,
        other => status(&Error::internal(other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mvvd_core::Position;

    #[test]
    fn a_status_carries_place_and_hint() {
        let error = Error::invalid("no").at(Position { line: 2, column: 5 }).with_hint("yes");
        let status = status(&error);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "no (line 2, column 5); hint: yes");
    }

    #[test]
    fn long_messages_are_cut() {
        assert_eq!(status(&Error::invalid("é".repeat(5_000))).message().chars().count(), MESSAGE_CHARS_MAX + 1);
    }
}

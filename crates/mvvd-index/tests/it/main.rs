//! What every kind of index must do, tested in one suite.
//!
//! A new kind is one function and one line in `kinds`.

#![expect(clippy::unwrap_used, reason = "tests")]

mod answers;
mod bytes;
mod data;
mod kinds;
mod truth;

//! Integration tests of the query crate, in one binary.

mod hostile;
mod native;
mod scripts;
mod slt;

//! Integration tests of the query crate, in one binary.

mod scripts;
mod slt;

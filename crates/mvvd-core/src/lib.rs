//! Types, schema, metrics, distance kernels, top-k and errors of MVVD.
//!
//! Words used everywhere:
//! - *row*: one entity; [`id::RowId`] is its stable number, never used again after a delete.
//! - *ordinal*: a position within one chunk of rows.
//! - *distance*: smaller is nearer, always; a *similarity* is the other way round and only shown to users.
//! - *cross-vector*: several vector columns in one score. *Multivector* (many vectors in one cell) is another thing.

pub mod convert;
pub mod error;
pub mod id;
pub mod kernels;
pub mod literal;
pub mod metric;
pub mod schema;
pub mod vector_type;

pub use error::{Error, ErrorKind, Position, Result};
pub use id::{Ordinal, RowId};
pub use schema::TableSchema;
pub use vector_type::{VectorKind, VectorType};

//! The native API: entities in and out, cross-vector queries and functions without SQL.
//!
//! Everything builds the same logical plans as SQL does and gives the same answers.

mod cross_vector;
mod entities;
mod functions;
mod ingest;

pub use cross_vector::{Combine, CrossVectorQuery, Field, Missing, Query};
pub use entities::OnConflict;
pub(crate) use functions::UserFunctions;
pub use ingest::{IfExists, IfMissing, Ingest};

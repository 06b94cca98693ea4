//! Sessions, the SQL dialect, planning and execution of MVVD.
//!
//! [`Mvvd`] is a database, [`Session`] a connection to it. Every door (SQL, the native API, the command line) enters
//! through a session; results are Arrow record batches.

pub mod admin;
mod answer;
mod bridge;
mod catalog;
mod code_distance;
mod coerce;
mod conflict;
mod constants;
mod copy;
mod ddl;
mod declared;
mod describe;
mod dialect;
mod dml;
mod engine;
mod error;
mod files;
mod indexes;
mod insert;
mod lexer;
mod locks;
pub mod native;
mod plan_rule;
mod prepare;
mod progress;
mod range;
mod reach;
mod recall;
mod returning;
mod rewrite;
mod row_filter;
mod scan_exec;
mod search_functions;
mod session;
mod settings;
mod statement;
mod syntax;
mod system_tables;
mod topk;
pub mod value;
mod versions;
mod yields;

pub use answer::{Answer, RowStream};
pub use describe::{Description, TableInfo};
pub use engine::{Config, Directory, Mvvd, Storage};
pub use lexer::Statement;
pub use native::{Combine, CrossVectorQuery, Field, IfExists, IfMissing, Ingest, Missing, OnConflict, Query};
pub use progress::Progress;
pub use session::{Session, Vocabulary};
pub use settings::{SETTINGS, Setting, Settings};
pub use value::Value;

pub use mvvd_core as core;
pub use mvvd_index as index;
pub use mvvd_storage::{Durability, KeySource, StorageMode};

//! The network doors of MVVD: Arrow Flight SQL over gRPC.
//!
//! [`serve`] answers on a listener until it is told to stop. Every call enters through a [`mvvd_query::Session`], whose
//! statements run on the database's own threads; the threads here wait, decode and encode.

mod flight;
mod serve;
mod status;

pub use serve::{MESSAGE_BYTES_MAX, serve};

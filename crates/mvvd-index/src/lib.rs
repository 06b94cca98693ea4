//! Vector indexes of MVVD: pure algorithms over the vectors of one segment.
//!
//! An index covers the rows of one segment, by ordinal, and proposes the rows near a query; it never holds the vectors
//! themselves, which the segment has and every search is given. It owns no file: it is built into bytes and opened from
//! bytes, which may be a map. What is deleted or filtered out is told with each search.
//!
//! | module | |
//! |---|---|
//! | `kind` | [`IndexKind`]: what a type of index can do, and how it is built and opened; [`Registry`] |
//! | `options` | options in `WITH (…)`, their ranges and defaults |
//! | `vectors` | [`Vectors`]: the vectors of one column of a segment |
//! | `request` | [`Request`]: what is searched for; [`Hit`]: what is found |
//! | `filter` | [`Filter`]: which rows may be found |
//! | `hnsw`, `ivf`, `flat`, `inverted` | the kinds of this crate: a graph, lists of codes, every row, postings of sparse vectors |
//! | `exact` | the answer by measuring every row: for few rows, and where an index has no better way |
//! | `nearest` | which `k` of many hits are the nearest |
//! | `refine` | the exact order of rows of which only bounds are known |
//! | `parts` | how the parts of an index lie in its bytes |
//! | `space` | how vectors of a metric are made ready: length, mean, rotation |
//! | `rotate` | random rotations |
//! | `euclid` | metrics as the Euclidean distance |
//! | `codec` | short codes of vectors |
//! | `calibrate` | how much effort gives which recall |
//! | `kmeans` | centroids of many points |
//! | `sidecar` | the frame around an index on disk: magic, version, checksum, what it was built from |

mod calibrate;
mod codec;
mod euclid;
mod exact;
mod filter;
mod flat;
mod hnsw;
mod inverted;
mod ivf;
mod kind;
mod kmeans;
mod nearest;
mod options;
mod parts;
mod refine;
mod request;
mod rotate;
mod sidecar;
mod space;
mod vectors;

pub use filter::Filter;
pub use kind::{Build, Cursor, IndexKind, IndexSpec, Knob, Registry, VectorIndex};
pub use options::{Choice, OptionSpec, Options};
pub use request::{Effort, Hit, Query, Request, Term};
pub use sidecar::{build, build_over, extended, open, open_over};
pub use vectors::{Values, Vectors};

//! Top-k: `ORDER BY <any expression> LIMIT k` over one table as one operator.
//!
//! - `rule` recognises the plan and replaces it;
//! - `score` computes the sort keys of a block of rows, distances straight from the column buffers;
//! - `sum` says when a row of a weighted sum cannot win any more, so that its other distances are not computed;
//! - `heap` keeps the k best rows in a total order;
//! - `index` says whether an index answers, and asks it for rows;
//! - `exec` runs both over all rows on the search threads and fetches the other columns for the winners only.

mod exec;
mod heap;
mod index;
mod rule;
mod score;
mod sum;

pub(crate) use index::{Choice, IndexUse};
pub(crate) use rule::replace;
pub(crate) use score::Score;

//! Short codes that stand for vectors, and estimates of distances from them.

pub(crate) mod rabitq;
pub(crate) mod sq8;

//! The graph: Malkov & Yashunin 2018, "HNSW", searched by codes.
//!
//! | module | |
//! |---|---|
//! | `build` | from vectors to an index: codes, links, records; `extend` adds rows |
//! | `twins` | which rows share a node |
//! | `graph`, `insert`, `fill` | a graph in the making, how a node gets its links, and further ones |
//! | `space` | how far apart two nodes are while a graph is built |
//! | `layout`, `format` | the record of a node, and the bytes of an index |
//! | `index` | an index that is open |
//! | `guide` | how a search sees the graph: estimates, codes or vectors |
//! | `beam` | which nodes come next |
//! | `search`, `filtered`, `cursor` | the k nearest, those of some rows only, and all rows in turn |

mod beam;
mod build;
mod cursor;
mod extend;
mod fill;
mod filtered;
mod format;
mod graph;
mod guide;
mod index;
mod insert;
mod layout;
mod search;
mod space;
#[cfg(test)]
mod tests;
mod twins;

use std::sync::Arc;

use arrow::buffer::Buffer;
use mvvd_core::metric::Metric;
use mvvd_core::{Error, Result, VectorKind};

use self::beam::NONE;
use self::layout::Codes;
use crate::euclid::Euclid;
use crate::kind::{Build, IndexKind, IndexSpec, Knob, VectorIndex};
use crate::options::{Choice, OptionSpec};
use crate::vectors::Vectors;

const M: u64 = 16;
const EF_CONSTRUCTION: u64 = 200;
/// Links of a node come in blocks of so many where their codes lie beside them.
const BLOCK: usize = 32;

static OPTIONS: [OptionSpec; 3] = [
    OptionSpec {
        name: "m",
        choice: Choice::Number { min: 4, max: 64, default: Some(M) },
        about: "Links of a node on each level; twice as many, in blocks of 32 with rabitq codes, on the lowest.",
    },
    OptionSpec {
        name: "ef_construction",
        choice: Choice::Number { min: 16, max: 2000, default: Some(EF_CONSTRUCTION) },
        about: "Candidates that are kept while a node is linked, at least m. More gives a better graph, built more slowly.",
    },
    OptionSpec {
        name: "codes",
        choice: Choice::Name(&["sq8", "rabitq"]),
        about: "What guides a search: sq8, one byte a dimension beside each node, or rabitq, 1-bit codes of a node's \
                neighbours beside it, which takes several times the memory. The metrics l1, hamming and jaccard measure the vectors themselves.",
    },
];

/// The kind `hnsw`.
#[derive(Debug)]
pub(crate) struct HnswKind;

impl IndexKind for HnswKind {
    fn name(&self) -> &'static str {
        "hnsw"
    }

    fn knob(&self) -> Knob {
        Knob::EfSearch
    }

    fn options(&self) -> &[OptionSpec] {
        &OPTIONS
    }

    fn check(&self, spec: &IndexSpec) -> Result<()> {
        let [column] = spec.columns[..] else {
            return Err(Error::unsupported(format!(
                "an index of type hnsw has one column, got {}",
                spec.columns.len()
            )));
        };
        if column.kind == VectorKind::Sparse {
            return Err(Error::unsupported("an index of type hnsw does not serve sparse vectors")
                .with_hint("USING inverted serves them"));
        }
        if spec.metric.is_binary() != (column.kind == VectorKind::Bit) {
            return Err(Error::unsupported(format!("{} does not measure {column}", spec.metric)));
        }
        let settings = Settings::of(spec);
        if settings.ef_construction < settings.m {
            return Err(Error::invalid(format!(
                "option \"ef_construction\" must be at least m = {}, got {}",
                settings.m, settings.ef_construction
            )));
        }
        Ok(())
    }

    fn build(&self, spec: &IndexSpec, columns: &[Vectors<'_>], build: &Build<'_>) -> Result<Vec<u8>> {
        Ok(build::build(Settings::of(spec), &columns[0], build)?.to_bytes())
    }

    fn open(&self, spec: &IndexSpec, bytes: Buffer) -> Result<Arc<dyn VectorIndex>> {
        Ok(Arc::new(format::open(Settings::of(spec), spec.columns[0], bytes)?))
    }
}

/// What an index is built by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Settings {
    metric: Metric,
    m: usize,
    ef_construction: usize,
    codes: Codes,
}

impl Settings {
    fn of(spec: &IndexSpec) -> Self {
        let number = |name: &str, default: u64| spec.options.number(name).unwrap_or(default) as usize;
        let codes = match spec.options.name("codes") {
            _ if !Euclid::serves(spec.metric, spec.columns[0]) => Codes::None,
            Some("rabitq") => Codes::RaBitQ,
            _ => Codes::Sq8,
        };
        let m = number("m", M);
        Self { metric: spec.metric, m, ef_construction: number("ef_construction", EF_CONSTRUCTION), codes }
    }

    /// Links of a node on level 0.
    fn degree(&self) -> usize {
        match self.codes {
            Codes::RaBitQ => (2 * self.m).next_multiple_of(BLOCK),
            Codes::Sq8 | Codes::None => 2 * self.m,
        }
    }
}

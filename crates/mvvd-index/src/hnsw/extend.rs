//! How does an index cover further rows? They are coded with the centre that is there, inserted, and all is laid out anew.

use mvvd_core::Result;

use super::NONE;
use super::build::{Coding, Draft, usable};
use super::graph::{Graph, level_of};
use super::index::Hnsw;
use super::twins::fold;
use crate::kind::Build;
use crate::vectors::Vectors;

/// Beyond this many new nodes for each old one a new build gives the better graph at about the cost.
const GROWTH_MAX: usize = 1;

/// The bytes of `index` that also covers the rows of `column` after its own; none where a build from the start is better.
pub(super) fn extended(index: &Hnsw, column: &Vectors<'_>, build: &Build<'_>) -> Result<Option<Vec<u8>>> {
    if index.nodes() == 0 {
        return Ok(None);
    }
    build.pool.install(|| {
        let euclid = index.coding.as_ref().map(|(euclid, _)| euclid);
        let old = index.nodes();
        let mut ordinals = index.ordinals.to_vec();
        ordinals.extend(usable(euclid, column, index.rows));
        let mut coding = index.coding.as_ref().map(|(euclid, sq8)| {
            let codes = (0..old as u32).flat_map(|node| index.records.own_code(node).iter().copied()).collect();
            let factors = (0..old as u32).map(|node| index.records.own_factors(node)).collect();
            let mut coding = Coding { euclid: *euclid, sq8: sq8.clone(), codes, factors };
            coding.append(column, &ordinals[old..]);
            coding
        });
        let mut twins = index.twins.pairs.as_chunks().0.to_vec();
        twins.extend(fold(column, &mut ordinals, &mut coding, old));
        twins.sort_unstable();
        if ordinals.len() - old > GROWTH_MAX * old {
            return Ok(None);
        }
        // New nodes come no higher than the entry, which stays.
        let top = index.upper.levels[index.entry as usize];
        let new = (old..ordinals.len()).map(|node| level_of(index.seed, node as u32, index.settings.m).min(top));
        let levels = index.upper.levels.iter().copied().chain(new).collect();
        let graph = Graph::new(index.settings.degree(), index.settings.m, levels);
        graph.set_upper(&index.upper.links);
        for node in 0..old as u32 {
            let links = index.records.links(node);
            let count = links.iter().position(|&link| link == NONE).unwrap_or(links.len());
            graph.write(node, 0, &links[..count]);
        }
        let settings = index.settings;
        let draft = Draft {
            settings,
            seed: index.seed,
            rows: column.len(),
            ordinals,
            twins,
            coding,
            graph,
            entry: index.entry,
        };
        draft.insert(column, old as u32, build)?;
        Ok(Some(draft.finish(column, build)?.to_bytes()))
    })
}

//! Which rows of a chunk may be found, as indexes want it.

use arrow::array::BooleanBufferBuilder;
use datafusion::common::Result;
use mvvd_index::Filter;
use mvvd_storage::Chunk;
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use crate::scan_exec::Scan;

/// Rows whose conditions one task evaluates at once.
const BLOCK_ROWS: usize = 2_048;

/// The rows that are not deleted; none if that is all of them.
pub(crate) fn live(chunk: &Chunk) -> Option<Filter> {
    if chunk.deleted().is_empty() {
        return None;
    }
    let mut bits = BooleanBufferBuilder::new(chunk.len());
    bits.append_n(chunk.len(), true);
    chunk.deleted().iter().for_each(|row| bits.set_bit(row as usize, false));
    Some(Filter::new(&bits.finish()))
}

/// The rows of a chunk that are live and pass the conditions of the scan; none if that is all of them. Runs on the pool it
/// is called from.
pub(crate) fn passing(scan: &Scan, chunk: u32) -> Result<Option<Filter>> {
    let rows = &scan.snapshot.chunks()[chunk as usize];
    if scan.filters.is_empty() {
        return Ok(live(rows));
    }
    let pieces: Vec<_> = scan.pieces(BLOCK_ROWS).into_iter().filter(|piece| piece.chunk == chunk).collect();
    let selected = pieces.par_iter().map(|piece| scan.selection(piece)).collect::<Result<Vec<_>>>()?;
    let mut bits = BooleanBufferBuilder::new(rows.len());
    for (piece, selected) in pieces.iter().zip(selected) {
        // Blocks in which no row can pass were left out.
        bits.append_n(piece.range.start - bits.len(), false);
        bits.append_n(piece.range.len(), selected.is_none());
        let positions = selected.iter().flat_map(|selected| selected.values());
        positions.for_each(|&position| bits.set_bit(piece.range.start + position as usize, true));
    }
    bits.append_n(rows.len() - bits.len(), false);
    let filter = Filter::new(&bits.finish());
    Ok((filter.count() < rows.len()).then_some(filter))
}

//! Rows on their way from chunks to new segments: those of the newest version, and those that only versions before it
//! still have.
//!
//! A version is moved as a whole, so that it needs neither memory nor the log afterwards. Most of its rows are in the
//! segments of the newest version already; it names these with the other rows marked as deleted. Rows that were deleted
//! or replaced since go to segments that only older versions name.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::ArrayRef;
use mvvd_core::{Ordinal, Result, TableSchema};
use roaring::RoaringBitmap;

use crate::chunk::{Chunk, Merge};
use crate::disk::Disk;
use crate::key::{KeyColumn, KeyRef};
use crate::segment::Segment;
use crate::snapshot::Snapshot;
use crate::table::{Frozen, GONE};

/// New segments, and what they take the place of. A place is the index of a segment and, in the low 32 bits, an ordinal.
pub(crate) struct Moves {
    /// First those of the newest version.
    pub(crate) segments: Vec<Arc<Segment>>,
    /// How many segments the newest version has.
    newest: usize,
    /// The chunks of the newest version whose rows they hold.
    old: Vec<Arc<Chunk>>,
    /// The places of their rows, or [`GONE`].
    to: Vec<Vec<u64>>,
    /// Versions from this one on get the segments; of older ones only those in `older`.
    since: u64,
    /// For each older version that had chunks in memory, what it has in their place: segments, and which of their rows
    /// it does not have.
    older: HashMap<u64, Vec<(usize, RoaringBitmap)>>,
}

impl Moves {
    /// Writes segments with the live rows of some segments of the newest version.
    pub(crate) fn compacted(disk: &Disk, schema: &TableSchema, picked: &[Arc<Chunk>]) -> Result<Self> {
        Self::of_newest(disk, picked, &Merge::new(schema, picked)?, u64::MAX)
    }

    /// Writes segments with the rows of all versions that are only in memory and in the log.
    pub(crate) fn flushed(disk: &Disk, frozen: &Frozen) -> Result<Self> {
        let merge = Merge::new(frozen.snapshot.schema(), &frozen.chunks)?;
        let mut moves = Self::of_newest(disk, &frozen.chunks, &merge, frozen.snapshot.version)?;
        let result = moves.add_older(disk, frozen, &merge);
        if result.is_err() {
            for segment in &moves.segments {
                let _ = disk.fs.remove(segment.path());
            }
        }
        result.map(|()| moves)
    }

    fn of_newest(disk: &Disk, old: &[Arc<Chunk>], merge: &Merge, since: u64) -> Result<Self> {
        let segments = write(disk, merge)?;
        let mut to: Vec<Vec<u64>> = old.iter().map(|chunk| vec![GONE; chunk.len()]).collect();
        for (&(chunk, row), place) in merge.sources().iter().zip(places(&segments, 0)) {
            to[chunk][row] = place;
        }
        Ok(Self { newest: segments.len(), segments, old: old.to_vec(), to, since, older: HashMap::new() })
    }

    fn add_older(&mut self, disk: &Disk, frozen: &Frozen, merge: &Merge) -> Result<()> {
        if frozen.older.is_empty() {
            return Ok(());
        }
        let chunks = &frozen.chunks;
        let arrays = chunks.iter().map(|chunk| chunk.keys(0..chunk.len())).collect::<Result<Vec<ArrayRef>>>()?;
        let keys = arrays.iter().map(|array| KeyColumn::of(array)).collect::<Result<Vec<_>>>()?;
        let rows = merge.sources().iter().copied().zip(places(&self.segments, 0)).collect();
        let written = Written { chunks, keys: &keys, rows };
        // A segment has the columns of one schema: versions with other columns cannot share it.
        let mut groups: Vec<(Vec<u32>, Vec<&Snapshot>)> = Vec::new();
        for snapshot in &frozen.older {
            let ids = ids_of(snapshot.schema());
            match groups.iter_mut().find(|(of_group, _)| *of_group == ids) {
                Some((_, snapshots)) => snapshots.push(snapshot),
                None => groups.push((ids, vec![snapshot])),
            }
        }
        let stored = ids_of(frozen.snapshot.schema());
        for (ids, snapshots) in groups {
            let shares = ids.iter().all(|id| stored.contains(id));
            self.add_group(disk, &snapshots, shares.then_some(&written))?;
        }
        Ok(())
    }

    /// Moves versions with the same columns; rows that are in `written` stay there.
    fn add_group(&mut self, disk: &Disk, snapshots: &[&Snapshot], written: Option<&Written>) -> Result<()> {
        let Some(newest) = snapshots.last() else { return Ok(()) };
        // The chunks in memory, and which of their rows none of the versions has.
        let mut chunks: Vec<Arc<Chunk>> = Vec::new();
        let mut unused: Vec<RoaringBitmap> = Vec::new();
        let mut index: HashMap<u32, usize> = HashMap::new();
        for chunk in snapshots.iter().flat_map(|snapshot| in_memory(snapshot)) {
            let i = *index.entry(chunk.uid()).or_insert(chunks.len());
            if i == chunks.len() {
                chunks.push(Arc::clone(chunk));
                unused.push(chunk.deleted().clone());
            } else {
                unused[i] &= chunk.deleted();
            }
        }
        let arrays = chunks.iter().map(|chunk| chunk.keys(0..chunk.len())).collect::<Result<Vec<ArrayRef>>>()?;
        let keys = arrays.iter().map(|array| KeyColumn::of(array)).collect::<Result<Vec<_>>>()?;

        // Where their rows are, and which are nowhere yet.
        let mut to: Vec<Vec<u64>> = chunks.iter().map(|chunk| vec![GONE; chunk.len()]).collect();
        let mut rest: Vec<(usize, usize)> = Vec::new();
        for (i, chunk) in chunks.iter().enumerate() {
            let moved = self.old.iter().position(|old| old.uid() == chunk.uid()).map(|old| &self.to[old]);
            let mut from = 0;
            for row in (0..chunk.len()).filter(|&row| !unused[i].contains(row as u32)) {
                let place = match (written, moved) {
                    (None, _) => GONE,
                    (Some(_), Some(moved)) => moved[row],
                    (Some(written), None) => written.find(keys[i].at(row), chunk.born(row), &mut from),
                };
                to[i][row] = place;
                if place == GONE {
                    rest.push((i, row));
                }
            }
        }

        // Keys differ within a segment: the rows that had one key at different times go to different ones.
        let key = |&(chunk, row): &(usize, usize)| keys[chunk].at(row);
        let born = |&(chunk, row): &(usize, usize)| chunks[chunk].born(row);
        rest.sort_unstable_by(|a, b| key(a).cmp(&key(b)).then_with(|| born(a).cmp(&born(b))));
        let mut layers: Vec<Vec<(usize, usize)>> = Vec::new();
        let mut layer_of: Vec<(usize, usize)> = Vec::with_capacity(rest.len());
        for (i, row) in rest.iter().enumerate() {
            let layer = match i.checked_sub(1).map(|before| (&rest[before], layer_of[before])) {
                // The same row, in a chunk that others were merged into.
                Some((before, place)) if key(before) == key(row) && born(before) == born(row) => {
                    layer_of.push(place);
                    continue;
                }
                Some((before, (layer, _))) if key(before) == key(row) => layer + 1,
                _ => 0,
            };
            if layer == layers.len() {
                layers.push(Vec::new());
            }
            layer_of.push((layer, layers[layer].len()));
            layers[layer].push(*row);
        }
        let mut layer_places = Vec::with_capacity(layers.len());
        for layer in layers {
            let segments = write(disk, &Merge::of_rows(newest.schema(), &chunks, layer))?;
            layer_places.push(places(&segments, self.segments.len()).collect::<Vec<u64>>());
            self.segments.extend(segments);
        }
        for (&(chunk, row), (layer, position)) in rest.iter().zip(layer_of) {
            to[chunk][row] = layer_places[layer][position];
        }

        // What each version has of them.
        let all: Vec<BTreeMap<usize, RoaringBitmap>> = to.iter().map(|places| by_segment(places)).collect();
        for snapshot in snapshots {
            let mut present: BTreeMap<usize, RoaringBitmap> = BTreeMap::new();
            for chunk in in_memory(snapshot) {
                let i = index[&chunk.uid()];
                let deleted = chunk.deleted().iter().map(|row| to[i][row as usize]);
                let deleted = by_segment(&deleted.collect::<Vec<_>>());
                for (segment, rows) in &all[i] {
                    let rows = deleted.get(segment).map_or_else(|| rows.clone(), |deleted| rows - deleted);
                    *present.entry(*segment).or_default() |= rows;
                }
            }
            let live: u64 = present.values().map(RoaringBitmap::len).sum();
            debug_assert_eq!(live as usize, in_memory(snapshot).map(|chunk| chunk.live()).sum::<usize>());
            let parts = present.into_iter().filter(|(_, rows)| !rows.is_empty()).map(|(segment, rows)| {
                let mut deleted = RoaringBitmap::new();
                deleted.insert_range(0..self.segments[segment].rows() as u32);
                (segment, deleted - rows)
            });
            self.older.insert(snapshot.version, parts.collect());
        }
        Ok(())
    }

    /// The chunks of a version after the moves; none if it keeps those it has. `chunks` are those of the segments.
    pub(crate) fn applied_to(
        &self,
        snapshot: &Snapshot,
        chunks: &[Arc<Chunk>],
        is_head: bool,
    ) -> Option<Vec<Arc<Chunk>>> {
        if let Some(parts) = self.older.get(&snapshot.version) {
            let stored = snapshot.chunks.iter().filter(|chunk| chunk.is_stored()).map(Arc::clone);
            let moved = parts.iter().map(|(i, deleted)| Arc::new(chunks[*i].with_deleted(deleted)));
            return Some(stored.chain(moved).collect());
        }
        if snapshot.version < self.since && !is_head {
            return None;
        }
        let current: HashMap<u32, &Arc<Chunk>> = snapshot.chunks.iter().map(|chunk| (chunk.uid(), chunk)).collect();
        // A truncated table has none of them left.
        if self.old.iter().all(|chunk| !current.contains_key(&chunk.uid())) {
            return None;
        }
        let mut late: HashMap<usize, Vec<Ordinal>> = HashMap::new();
        for (chunk, places) in self.old.iter().zip(&self.to) {
            let gone = match current.get(&chunk.uid()) {
                Some(now) => now.deleted() - chunk.deleted(),
                None => (0..chunk.len() as u32).collect(),
            };
            for place in gone.into_iter().map(|row| places[row as usize]).filter(|place| *place != GONE) {
                late.entry(segment_of(place)).or_default().push(place as Ordinal);
            }
        }
        let mut added: Vec<Arc<Chunk>> = chunks[..self.newest]
            .iter()
            .enumerate()
            .map(|(i, chunk)| match late.remove(&i) {
                Some(ordinals) => Arc::new(chunk.with_deleted(ordinals)),
                None => Arc::clone(chunk),
            })
            .filter(|chunk| chunk.live() > 0)
            .collect();
        let mut result = Vec::with_capacity(snapshot.chunks.len() + added.len());
        for chunk in &snapshot.chunks {
            if self.old.iter().any(|old| old.uid() == chunk.uid()) {
                result.append(&mut added);
            } else {
                result.push(Arc::clone(chunk));
            }
        }
        Some(result)
    }

    /// The names of the rows of each old chunk in the chunks of the segments.
    pub(crate) fn into_row_ids(self, chunks: &[Arc<Chunk>]) -> HashMap<u32, Vec<u64>> {
        let row_id = |place: u64| match place {
            GONE => GONE,
            place => chunks[segment_of(place)].row_id(place as u32 as usize).0,
        };
        let renamed = |places: Vec<u64>| places.into_iter().map(row_id).collect();
        self.old.iter().zip(self.to).map(|(chunk, places)| (chunk.uid(), renamed(places))).collect()
    }
}

/// The rows of the newest version in their segments, in key order.
struct Written<'a> {
    chunks: &'a [Arc<Chunk>],
    /// The keys of these chunks.
    keys: &'a [KeyColumn<'a>],
    /// Chunk and ordinal of each row, and its place.
    rows: Vec<((usize, usize), u64)>,
}

impl Written<'_> {
    /// The place of the row with this key that came with this version, or [`GONE`]. Keys are asked for in their order;
    /// `from` is where the search was.
    fn find(&self, key: KeyRef, born: Option<u64>, from: &mut usize) -> u64 {
        let key_of = |(chunk, row): (usize, usize)| self.keys[chunk].at(row);
        *from += self.rows[*from..].partition_point(|(source, _)| key_of(*source) < key);
        match self.rows.get(*from) {
            Some(&(source, place)) if key_of(source) == key && self.chunks[source.0].born(source.1) == born => place,
            _ => GONE,
        }
    }
}

fn write(disk: &Disk, merge: &Merge) -> Result<Vec<Arc<Segment>>> {
    if merge.sources().is_empty() { Ok(Vec::new()) } else { disk.write_segments(merge.schema(), merge) }
}

fn ids_of(schema: &TableSchema) -> Vec<u32> {
    schema.columns().iter().map(|column| column.id).collect()
}

fn in_memory(snapshot: &Snapshot) -> impl Iterator<Item = &Arc<Chunk>> {
    snapshot.chunks.iter().filter(|chunk| !chunk.is_stored())
}

/// The places of all rows of some segments, in order; the first segment has the index `first`.
fn places(segments: &[Arc<Segment>], first: usize) -> impl Iterator<Item = u64> {
    segments
        .iter()
        .zip(first..)
        .flat_map(|(segment, i)| (0..segment.rows()).map(move |row| (i as u64) << 32 | row as u64))
}

fn segment_of(place: u64) -> usize {
    (place >> 32) as usize
}

/// Ordinals by segment.
fn by_segment(places: &[u64]) -> BTreeMap<usize, RoaringBitmap> {
    let mut rows: BTreeMap<usize, RoaringBitmap> = BTreeMap::new();
    for part in places.chunk_by(|a, b| segment_of(*a) == segment_of(*b)).filter(|part| part[0] != GONE) {
        rows.entry(segment_of(part[0])).or_default().extend(part.iter().map(|place| *place as Ordinal));
    }
    rows
}

//! The bytes of an index of kind `hnsw`, as [`crate::parts`] lays numbers and arrays out.
//!
//! ```text
//! u32 version, 2          u32 codes: 0 RaBitQ, 1 SQ8, 2 none
//! u32 m                   u32 ef_construction
//! u64 seed                u64 rows
//! u64 nodes               u32 entry
//! f64 square of the greatest length (crate::euclid)
//! u64 links of the upper levels    u64 entries
//! u64 twins
//! u32 n, then n times u32 effort and f32 recall
//! arrays: the rows of nodes u32; twins, each u32 node and u32 row, ascending; the centre f32; levels u8; upper links u32;
//!         entries u32, their factors f32 and codes u8; records (hnsw::layout)
//! ```

use arrow::buffer::Buffer;
use mvvd_core::kernels::BLOCK_ROWS;
use mvvd_core::{Result, VectorType};

use super::Settings;
use super::beam::{NODES_MAX, NONE};
use super::index::{Entries, Hnsw, Upper};
use super::layout::{Codes, Records, Shape};
use super::twins::Twins;
use crate::calibrate::Curve;
use crate::codec::sq8::Sq8;
use crate::euclid::Euclid;
use crate::parts::{PartsReader, PartsWriter, corrupt};
use crate::rotate::PADDING;

const VERSION: u32 = 2;

impl Codes {
    fn number(self) -> u32 {
        match self {
            Self::RaBitQ => 0,
            Self::Sq8 => 1,
            Self::None => 2,
        }
    }
}

impl Hnsw {
    /// The bytes that [`open`] takes.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut parts = PartsWriter::default();
        parts.number(VERSION);
        parts.number(self.settings.codes.number());
        parts.number(self.settings.m as u32);
        parts.number(self.settings.ef_construction as u32);
        parts.number(self.seed);
        parts.number(self.rows as u64);
        parts.number(self.nodes() as u64);
        parts.number(self.entry);
        parts.number(self.coding.as_ref().map_or(0.0, |(euclid, _)| euclid.square_max()));
        parts.number(self.upper.links.len() as u64);
        parts.number(self.entries.nodes.len() as u64);
        parts.number(self.twins.len() as u64);
        self.curve.write(&mut parts);
        parts.array(&self.ordinals);
        parts.array(&self.twins.pairs);
        parts.array(self.coding.as_ref().map_or(&[][..], |(_, sq8)| sq8.centre()));
        parts.array(&self.upper.levels);
        parts.array(&self.upper.links);
        parts.array(&self.entries.nodes);
        parts.array(&self.entries.factors);
        parts.array(self.entries.codes.as_slice());
        parts.array(self.records.bytes());
        parts.finish()
    }
}

/// The index in `bytes`. Every number that a search relies on is looked at once.
pub(super) fn open(settings: Settings, column: VectorType, bytes: Buffer) -> Result<Hnsw> {
    let mut parts = PartsReader::new(bytes)?;
    let version = parts.number::<u32>()?;
    if version != VERSION {
        return Err(corrupt(format!("its form has version {version}, this program reads {VERSION}")));
    }
    let numbers = [parts.number::<u32>()?, parts.number()?, parts.number()?];
    if numbers != [settings.codes.number(), settings.m as u32, settings.ef_construction as u32] {
        return Err(corrupt("it was built with other options"));
    }
    let seed = parts.number::<u64>()?;
    let (rows, nodes) = (parts.count()?, parts.count()?);
    let entry = parts.number::<u32>()?;
    let square_max = parts.number::<f64>()?;
    let (upper_links, entries, twins) = (parts.count()?, parts.count()?, parts.count()?);
    let curve = Curve::read(&mut parts)?;
    if nodes > rows.min(NODES_MAX) || (nodes > 0 && entry as usize >= nodes) {
        return Err(corrupt(format!("{nodes} nodes of {rows} rows, starting at {entry}")));
    }
    if entries > nodes || !square_max.is_finite() {
        return Err(corrupt("it starts at more nodes than there are"));
    }
    let coded = settings.codes != Codes::None;
    let euclid = coded.then(|| Euclid::with_square_max(settings.metric, column.dims, square_max));
    let dims = euclid.map_or(0, |euclid| euclid.dims());
    let padded = if settings.codes == Codes::RaBitQ { dims.next_multiple_of(PADDING) } else { 0 };
    let shape = Shape { codes: settings.codes, degree: settings.degree(), dims, padded };

    let ordinals = parts.array::<u32>(nodes)?;
    if !ordinals.is_sorted_by(|a, b| a < b) || ordinals.last().is_some_and(|&last| last as usize >= rows) {
        return Err(corrupt("its rows are not in order"));
    }
    let twins = twins.checked_mul(2).ok_or_else(|| corrupt("a length is too large"))?;
    let twins = Twins::open(parts.array(twins)?, &ordinals, rows)?;
    let centre = parts.array::<f32>(dims)?;
    if !centre.iter().all(|x| x.is_finite()) {
        return Err(corrupt("its centre is nowhere"));
    }
    let levels = parts.array::<u8>(nodes)?;
    let links = parts.array::<u32>(upper_links)?;
    check_upper(&levels, &links, settings.m, entry)?;
    let entry_nodes = parts.array::<u32>(entries)?;
    let blocks = if settings.codes == Codes::RaBitQ { entries.div_ceil(BLOCK_ROWS) } else { 0 };
    let factors = parts.array::<f32>(blocks * 2 * BLOCK_ROWS)?;
    let codes = parts.array::<u8>(blocks * shape.codes_bytes())?.into_inner();
    let bytes = nodes.checked_mul(shape.stride()).ok_or_else(|| corrupt("a length is too large"))?;
    let records = Records::new(shape, parts.array::<u8>(bytes)?.into_inner());
    parts.finish()?;
    let known = |&link: &u32| link == NONE || (link as usize) < nodes;
    if !entry_nodes.iter().all(|&node| (node as usize) < nodes)
        || !(0..nodes as u32).all(|node| records.links(node).iter().all(known))
    {
        return Err(corrupt("it links to what is not there"));
    }
    let coding = euclid.map(|euclid| (euclid, Sq8::new(centre.to_vec())));
    let upper = Upper::new(settings.m, levels, links);
    let entries = Entries { nodes: entry_nodes, factors, codes };
    let mut index = Hnsw::new(settings, seed, rows, ordinals, twins, coding, records, entry, upper, entries);
    index.curve = curve;
    Ok(index)
}

/// Links of a level are to nodes that are on it, and the entry is on the highest.
fn check_upper(levels: &[u8], links: &[u32], m: usize, entry: u32) -> Result<()> {
    let total: u64 = levels.iter().map(|&level| u64::from(level) * m as u64).sum();
    if total != links.len() as u64 || u32::try_from(total).is_err() {
        return Err(corrupt("its levels do not fit their links"));
    }
    let mut rest = links;
    for &level in levels {
        for on in 1..=level {
            let (of_level, after) = rest.split_at(m);
            rest = after;
            let on_it = |&link: &u32| link == NONE || levels.get(link as usize).is_some_and(|&level| level >= on);
            if !of_level.iter().all(on_it) {
                return Err(corrupt("it links to what is not there"));
            }
        }
    }
    match levels.iter().max() == levels.get(entry as usize) {
        true => Ok(()),
        false => Err(corrupt("it does not start at the top")),
    }
}

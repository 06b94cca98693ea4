//! The bytes of an index of lists.
//!
//! ```text
//! version, 2                                4 bytes
//! rows, lists, blocks                       8 bytes each
//! recall: all columns asked, of 10 rows     u32 n, then n times u32 lists and f32 recall
//! of 100, of 1000; one column asked, same   as that, five times
//! of each column: the space                 seed (8 bytes), mean (f32 a dimension)
//! of each column: the codec                 its own
//! centroids                                 f32 a dimension of each list, rotated, columns side by side
//! codes of the centroids, their factors     in blocks of 32, of each column
//! offsets of the lists                      u32, one more than lists, in blocks
//! ordinals                                  u32, 32 for each block; all ones where there is no row
//! codes, their factors                      in blocks of 32, of each column
//! ```

use arrow::buffer::Buffer;
use mvvd_core::Result;
use mvvd_core::kernels::BLOCK_ROWS;

use super::recall::Recall;
use super::{Ivf, NO_ROW};
use crate::codec::Codec;
use crate::kind::IndexSpec;
use crate::kmeans::{Centroids, Shape};
use crate::parts::{PartsReader, PartsWriter, check_offsets, corrupt};
use crate::space::Space;

/// The version of this form.
const VERSION: u32 = 2;

impl<C: Codec> Ivf<C> {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut out = PartsWriter::default();
        out.number(VERSION);
        for number in [self.rows, self.lists(), self.ordinals.len() / BLOCK_ROWS] {
            out.number(number as u64);
        }
        self.recall.write(&mut out);
        self.spaces.iter().for_each(|space| space.write(self.seed, &mut out));
        self.codecs.iter().for_each(|codec| codec.write(&mut out));
        out.array(&self.centroids.values);
        out.array(&self.centroids.codes);
        out.array(&self.centroids.factors);
        out.array(&self.offsets);
        out.array(&self.ordinals);
        out.array(&self.codes);
        out.array(&self.factors);
        out.finish()
    }

    pub(super) fn read(spec: &IndexSpec, bytes: Buffer) -> Result<Self> {
        let mut parts = PartsReader::new(bytes)?;
        let version: u32 = parts.number()?;
        if version != VERSION {
            return Err(corrupt(format!("its form has version {version}, this program reads {VERSION}")));
        }
        let (rows, lists, blocks) = (parts.count()?, parts.count()?, parts.count()?);
        let recall = Recall::read(&mut parts)?;
        let mut seed = 0;
        let spaces: Vec<Space> = spec
            .columns
            .iter()
            .map(|column| {
                let space;
                (seed, space) = Space::read(spec.metric, column.dims, &mut parts)?;
                Ok(space)
            })
            .collect::<Result<_>>()?;
        let codecs: Vec<C> =
            spaces.iter().map(|space| C::read(&spec.options, space, &mut parts)).collect::<Result<_>>()?;
        let times = |a: usize, b: usize| a.checked_mul(b).ok_or_else(|| corrupt("a length is too large"));
        let shape = Shape::new(spaces.iter().map(Space::width));
        let (width, list_blocks) = (shape.width(), lists.div_ceil(BLOCK_ROWS));
        let centroids = Centroids {
            values: parts.array(times(lists, width)?)?,
            codes: parts.array(times(list_blocks, 4 * width)?)?,
            factors: parts.array(times(list_blocks, spaces.len() * 3 * BLOCK_ROWS)?)?,
            count: lists,
            shape,
        };
        let offsets = parts.array::<u32>(lists.checked_add(1).ok_or_else(|| corrupt("a length is too large"))?)?;
        check_offsets(&offsets, blocks)?;
        let ordinals = parts.array::<u32>(times(blocks, BLOCK_ROWS)?)?;
        let mut seen = vec![0_u64; rows.min(ordinals.len().saturating_add(u32::MAX as usize)).div_ceil(64)];
        for &ordinal in ordinals.iter().filter(|&&ordinal| ordinal != NO_ROW) {
            let word = seen.get_mut(ordinal as usize / 64).filter(|_| (ordinal as usize) < rows);
            match word {
                Some(word) if *word >> (ordinal % 64) & 1 == 0 => *word |= 1 << (ordinal % 64),
                Some(_) => return Err(corrupt(format!("row {ordinal} is there twice"))),
                None => return Err(corrupt(format!("it has row {ordinal} of {rows}"))),
            }
        }
        let code_bytes: usize = codecs.iter().map(Codec::code_bytes).sum();
        let factor_count: usize = codecs.iter().map(Codec::factor_count).sum();
        let (codes, factors) = (parts.array(times(blocks, code_bytes)?)?, parts.array(times(blocks, factor_count)?)?);
        parts.finish()?;
        let mut index = Self {
            spec: spec.clone(),
            rows,
            seed,
            spaces,
            codecs,
            centroids,
            offsets,
            ordinals,
            codes,
            factors,
            recall,
            coded: Vec::new(),
        };
        index.coded = (0..index.codecs.len()).map(|column| index.count_coded(column)).collect();
        Ok(index)
    }

    /// Number of rows with a code in a column.
    fn count_coded(&self, column: usize) -> usize {
        let in_block = |block: usize| {
            let (_, factors) = self.block(block, column);
            factors
                .iter()
                .take(BLOCK_ROWS)
                .zip(self.block_rows(block))
                .filter(|(f, row)| !f.is_nan() && **row != NO_ROW)
                .count()
        };
        (0..self.ordinals.len() / BLOCK_ROWS).map(in_block).sum()
    }
}

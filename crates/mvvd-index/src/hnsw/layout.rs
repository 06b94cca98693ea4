//! How does a node lie in the bytes of an index? One record with its links and all that a search needs beside them.
//!
//! ```text
//! links      degree x u32, NONE after the last
//! blocks     with RaBitQ codes only; for every 32 links in turn
//!              factors   32 x f32 added, 32 x f32 multiplied (codec::rabitq), around the node as the centre
//!              codes     one bit a dimension, as kernels::fastscan wants a block of 32
//! own code   with SQ8 or RaBitQ codes: scale f32, square f32 (codec::sq8), one byte a dimension
//! zeros      up to a multiple of 64
//! ```
//!
//! Gou et al. 2024, "SymphonyQG": one access to memory for a node serves the estimates of all of its neighbours.

use arrow::buffer::{Buffer, ScalarBuffer};
use mvvd_core::kernels::{BLOCK_ROWS, ByteRows};

use super::beam::NONE;
use crate::codec::sq8;

/// What a record has beside the links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codes {
    /// The neighbours' 1-bit codes, and the node's own code.
    RaBitQ,
    /// The node's own code.
    Sq8,
    /// Nothing: distances are those of the vectors.
    None,
}

/// Where the parts of a record are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) codes: Codes,
    /// Links of a node, a multiple of 32 with RaBitQ codes.
    pub(super) degree: usize,
    /// Bytes of a node's own code.
    pub(super) dims: usize,
    /// Bits of a neighbour's code.
    pub(super) padded: usize,
}

const FACTORS_BYTES: usize = 2 * BLOCK_ROWS * 4;

impl Shape {
    /// Bytes of the factors and codes of 32 neighbours.
    fn block(&self) -> usize {
        FACTORS_BYTES + self.codes_bytes()
    }

    /// Bytes of the codes of 32 neighbours.
    pub(super) fn codes_bytes(&self) -> usize {
        self.padded * BLOCK_ROWS / 8
    }

    /// Blocks of a record.
    pub(super) fn blocks(&self) -> usize {
        if self.codes == Codes::RaBitQ { self.degree / BLOCK_ROWS } else { 0 }
    }

    fn own(&self) -> usize {
        4 * self.degree + self.blocks() * self.block()
    }

    /// From one record to the next.
    pub(super) fn stride(&self) -> usize {
        let own = if self.codes == Codes::None { 0 } else { size_of::<sq8::Factors>() + self.dims };
        (self.own() + own).next_multiple_of(64)
    }

    /// Writes the links of a record.
    pub(super) fn put_links(&self, record: &mut [u8], links: &[u32]) {
        let padded = links.iter().copied().chain(std::iter::repeat(NONE));
        for (slot, link) in record.as_chunks_mut::<4>().0.iter_mut().take(self.degree).zip(padded) {
            *slot = link.to_le_bytes();
        }
    }

    /// Writes a node's own code.
    pub(super) fn put_own(&self, record: &mut [u8], factors: sq8::Factors, code: &[u8]) {
        let own = &mut record[self.own()..];
        own[..4].copy_from_slice(&factors.scale.to_le_bytes());
        own[4..8].copy_from_slice(&factors.square.to_le_bytes());
        own[8..][..self.dims].copy_from_slice(code);
    }

    /// The factors and codes of a block, to be written.
    pub(super) fn block_mut<'r>(&self, record: &'r mut [u8], block: usize) -> (&'r mut [u8], &'r mut [u8]) {
        record[4 * self.degree + block * self.block()..][..self.block()].split_at_mut(FACTORS_BYTES)
    }
}

/// The records of all nodes.
#[derive(Debug, Clone)]
pub(super) struct Records {
    pub(super) shape: Shape,
    stride: usize,
    bytes: Buffer,
    words: ScalarBuffer<u32>,
    floats: ScalarBuffer<f32>,
}

impl Records {
    /// Records in `bytes`, which are aligned to numbers.
    pub(super) fn new(shape: Shape, bytes: Buffer) -> Self {
        let stride = shape.stride();
        assert!(bytes.len().is_multiple_of(stride), "whole records");
        let words = ScalarBuffer::new(bytes.clone(), 0, bytes.len() / 4);
        let floats = ScalarBuffer::new(bytes.clone(), 0, bytes.len() / 4);
        Self { shape, stride, bytes, words, floats }
    }

    /// All bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The record of a node.
    #[inline(always)]
    pub(super) fn record(&self, node: u32) -> &[u8] {
        &self.bytes[node as usize * self.stride..][..self.stride]
    }

    /// All links of a node, those after the last being [`NONE`].
    #[inline(always)]
    pub(super) fn links(&self, node: u32) -> &[u32] {
        &self.words[node as usize * self.stride / 4..][..self.shape.degree]
    }

    /// The factors and codes of 32 links.
    #[inline(always)]
    pub(super) fn block(&self, node: u32, block: usize) -> (&[f32; 2 * BLOCK_ROWS], &[u8]) {
        let start = node as usize * self.stride + 4 * self.shape.degree + block * self.shape.block();
        let (factors, _) = self.floats[start / 4..][..2 * BLOCK_ROWS].as_chunks();
        (&factors[0], &self.bytes[start + FACTORS_BYTES..][..self.shape.codes_bytes()])
    }

    /// The nodes' own codes.
    #[inline(always)]
    pub(super) fn own_codes(&self) -> ByteRows<'_> {
        ByteRows { bytes: &self.bytes, start: self.shape.own() + size_of::<sq8::Factors>(), stride: self.stride }
    }

    /// A node's own code.
    pub(super) fn own_code(&self, node: u32) -> &[u8] {
        let rows = self.own_codes();
        &rows.bytes[rows.start + node as usize * rows.stride..][..self.shape.dims]
    }

    /// The factors of a node's own code.
    #[inline(always)]
    pub(super) fn own_factors(&self, node: u32) -> sq8::Factors {
        let floats = &self.floats[(node as usize * self.stride + self.shape.own()) / 4..][..2];
        sq8::Factors { scale: floats[0], square: floats[1] }
    }
}

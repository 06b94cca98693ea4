//! Columns of clustered vectors with NULLs, zero vectors and duplicates, the same in every run; and queries near them.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, FixedSizeBinaryArray, FixedSizeListArray, Float16Array, Float32Array, ListArray, StructArray,
    UInt32Array,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field};
use half::f16;
use mvvd_core::vector_type::sparse_fields;
use mvvd_core::{VectorKind, VectorType};
use mvvd_index::{Query, Vectors};

/// Numbers that look random: SplitMix64.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(crate) fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    /// About normal, deviation 1.
    fn normal(&mut self) -> f32 {
        (0..12).map(|_| (self.next() >> 40) as f32 / (1 << 24) as f32).sum::<f32>() - 6.0
    }
}

/// One vector.
#[derive(Clone, Debug)]
pub(crate) enum Vector {
    Dense(Vec<f32>),
    Bits(Vec<u8>),
    Sparse(Vec<u32>, Vec<f32>),
}

/// Where vectors come from: clusters around centres.
pub(crate) struct Source {
    ty: VectorType,
    centres: Vec<Vector>,
    numbers: Numbers,
}

impl Source {
    pub(crate) fn new(ty: VectorType, seed: u64) -> Self {
        // The centres do not depend on the seed, so that queries lie where rows lie.
        let mut numbers = Numbers(ty.dims as u64);
        let centres = (0..24)
            .map(|_| match ty.kind {
                VectorKind::Dense | VectorKind::Half => {
                    Vector::Dense((0..ty.dims).map(|_| 2.0 * numbers.normal()).collect())
                }
                VectorKind::Bit => Vector::Bits((0..ty.dims.div_ceil(8)).map(|_| numbers.next() as u8).collect()),
                VectorKind::Sparse => {
                    let mut indices: Vec<u32> = (0..40).map(|_| numbers.below(3000) as u32).collect();
                    indices.sort_unstable();
                    indices.dedup();
                    let values = indices.iter().map(|_| numbers.normal().abs() + 0.1).collect();
                    Vector::Sparse(indices, values)
                }
            })
            .collect();
        Self { ty, centres, numbers: Numbers(seed) }
    }

    pub(crate) fn zero(&self) -> Vector {
        match self.ty.kind {
            VectorKind::Dense | VectorKind::Half => Vector::Dense(vec![0.0; self.ty.dims]),
            VectorKind::Bit => Vector::Bits(vec![0; self.ty.dims.div_ceil(8)]),
            VectorKind::Sparse => Vector::Sparse(vec![], vec![]),
        }
    }

    pub(crate) fn vector(&mut self) -> Vector {
        let numbers = &mut self.numbers;
        match &self.centres[numbers.below(self.centres.len())] {
            Vector::Dense(centre) => Vector::Dense(centre.iter().map(|x| x + numbers.normal()).collect()),
            Vector::Bits(centre) => {
                let mut bits: Vec<u8> = centre.clone();
                for _ in 0..self.ty.dims / 6 {
                    let bit = numbers.below(self.ty.dims);
                    bits[bit / 8] ^= 0x80 >> (bit % 8);
                }
                // Bits beyond the dimensions are 0.
                for bit in self.ty.dims..bits.len() * 8 {
                    bits[bit / 8] &= !(0x80 >> (bit % 8));
                }
                Vector::Bits(bits)
            }
            Vector::Sparse(indices, values) => {
                let kept = indices.iter().zip(values).filter(|_| numbers.next().is_multiple_of(2));
                let mut entries: Vec<(u32, f32)> = kept.map(|(&i, &v)| (i, v)).collect();
                // Words that are frequent, and words that nobody else has.
                for range in [50, 50, self.ty.dims] {
                    entries.push((numbers.below(range) as u32, numbers.normal()));
                }
                entries.sort_by_key(|entry| entry.0);
                entries.dedup_by_key(|entry| entry.0);
                entries.iter_mut().for_each(|entry| entry.1 *= 1.0 + 0.3 * numbers.normal());
                let (indices, values) = entries.into_iter().unzip();
                Vector::Sparse(indices, values)
            }
        }
    }

    /// A query near the rows.
    pub(crate) fn query(&mut self) -> Query {
        query(self.vector())
    }
}

pub(crate) fn query(vector: Vector) -> Query {
    match vector {
        Vector::Dense(values) => Query::Dense(values.into()),
        Vector::Bits(bytes) => Query::Bits(bytes.into()),
        Vector::Sparse(indices, values) => Query::Sparse(indices.into(), values.into()),
    }
}

/// A column of a segment.
pub(crate) struct Column {
    pub(crate) ty: VectorType,
    pub(crate) array: ArrayRef,
}

impl Column {
    /// Clustered rows; some are NULL, some zero, some as another.
    pub(crate) fn clustered(ty: VectorType, rows: usize, seed: u64) -> Self {
        let mut source = Source::new(ty, seed);
        let mut numbers = Numbers(seed ^ 0x5eed);
        let mut vectors: Vec<Option<Vector>> = Vec::new();
        for i in 0..rows {
            let vector = match i {
                _ if numbers.chance(30) => None,
                _ if numbers.chance(50) => Some(source.zero()),
                1.. if numbers.chance(15) => vectors[numbers.below(i)].clone(),
                _ => Some(source.vector()),
            };
            vectors.push(vector);
        }
        Self::of(ty, &vectors)
    }

    pub(crate) fn of(ty: VectorType, vectors: &[Option<Vector>]) -> Self {
        let nulls = NullBuffer::from(vectors.iter().map(Option::is_some).collect::<Vec<_>>());
        let numbers = |vector: &Option<Vector>| match vector {
            Some(Vector::Dense(values)) => values.clone(),
            // What stands in place of a NULL is arbitrary.
            _ => vec![7.5; ty.dims],
        };
        let list = |data_type: DataType, values: ArrayRef| {
            let field = Arc::new(Field::new("item", data_type, false));
            Arc::new(FixedSizeListArray::new(field, ty.dims as i32, values, Some(nulls.clone())))
        };
        let array: ArrayRef = match ty.kind {
            VectorKind::Dense => {
                let values = Float32Array::from_iter_values(vectors.iter().flat_map(numbers));
                list(DataType::Float32, Arc::new(values))
            }
            VectorKind::Half => {
                let values = Float16Array::from_iter_values(vectors.iter().flat_map(numbers).map(f16::from_f32));
                list(DataType::Float16, Arc::new(values))
            }
            VectorKind::Bit => {
                let width = ty.dims.div_ceil(8);
                let bytes: Vec<u8> = vectors
                    .iter()
                    .flat_map(|vector| match vector {
                        Some(Vector::Bits(bytes)) => bytes.clone(),
                        _ => vec![0xa5; width],
                    })
                    .collect();
                Arc::new(FixedSizeBinaryArray::new(width as i32, Buffer::from(bytes), Some(nulls)))
            }
            VectorKind::Sparse => {
                let entries = |vector: &Option<Vector>| match vector {
                    Some(Vector::Sparse(indices, values)) => (indices.clone(), values.clone()),
                    _ => (vec![1, 3], vec![5.0, 5.0]),
                };
                let entries: Vec<_> = vectors.iter().map(entries).collect();
                let offsets = OffsetBuffer::from_lengths(entries.iter().map(|entry| entry.0.len()));
                let indices = UInt32Array::from_iter_values(entries.iter().flat_map(|entry| entry.0.iter().copied()));
                let values = Float32Array::from_iter_values(entries.iter().flat_map(|entry| entry.1.iter().copied()));
                let fields = sparse_fields();
                let children: Vec<ArrayRef> = [Arc::new(indices) as ArrayRef, Arc::new(values)]
                    .into_iter()
                    .zip(fields.iter())
                    .map(|(items, field)| {
                        let (DataType::List(item) | DataType::LargeList(item)) = field.data_type() else {
                            unreachable!()
                        };
                        Arc::new(ListArray::new(Arc::clone(item), offsets.clone(), items, None)) as ArrayRef
                    })
                    .collect();
                Arc::new(StructArray::new(fields, children, Some(nulls)))
            }
        };
        Self { ty, array }
    }

    pub(crate) fn vectors(&self) -> Vectors<'_> {
        Vectors::new(&self.array, self.ty)
    }

    /// The rows from `start` on, without copying.
    pub(crate) fn slice(&self, start: usize, len: usize) -> Self {
        Self { ty: self.ty, array: self.array.slice(start, len) }
    }
}

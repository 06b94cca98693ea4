//! Numbers that stand for rows.

/// A row's stable number within its table: given in order of insertion, kept for life, never used again.
///
/// An updated row is a new row with a new number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowId(pub u64);

/// A position within one chunk of rows, from 0.
pub type Ordinal = u32;

//! Data sets, ground truth and reports of MVVD's measurements.

pub mod truth;

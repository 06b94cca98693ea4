//! Tables, snapshots and writes of MVVD.

//! Measures MVVD beside its peers.

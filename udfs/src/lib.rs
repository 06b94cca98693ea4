//! Vector SQL functions, operators, types and casts of MVVD.

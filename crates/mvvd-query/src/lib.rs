//! Sessions, the SQL dialect, planning and execution of MVVD.

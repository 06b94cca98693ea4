//! The mvvd command line and REPL.

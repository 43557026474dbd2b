//! The physical-memory arena.

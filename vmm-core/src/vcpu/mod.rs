//! Virtual processors: where they are, how they run, what they exit for.

pub mod presence;

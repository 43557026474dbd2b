//! The repository's papers and its contents agree.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its own repository fails")]

mod architecture;
mod contributing;
mod dependencies;
mod invariants;
mod licences;
mod measurements;
mod repeated;
mod specification;

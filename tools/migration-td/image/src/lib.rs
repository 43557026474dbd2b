//! The guest `mig-td` (`tools/guests/mig-td`) as a TDVF image.
//!
//! It is a crate apart from the other built-in guests, because what it is made of (`tdvisor-attest` and what that needs) changes
//! more often, and its MRTD with it. That is written down nowhere: a migration TD takes for its peer what measures as it does
//! itself, so both ends of a session run one and the same image.

#![forbid(unsafe_code)]

/// The image, to be mapped so that it ends at 4 GiB.
pub static IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/mig-td.fd"));

#[cfg(test)]
mod tests {
    use super::IMAGE;

    /// Panic messages carry source paths; one with this machine's folders would make the measurement depend on them.
    #[test]
    fn no_path_of_this_machine_is_in_the_image() {
        let here = env!("CARGO_MANIFEST_DIR").as_bytes();
        for path in [here, b".cargo/registry"] {
            let found = IMAGE.windows(path.len()).any(|window| window == path);
            assert!(!found, "{}", String::from_utf8_lossy(path));
        }
    }
}

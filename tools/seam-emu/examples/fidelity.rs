//! Prints FIDELITY.md: `cargo run -p seam-emu --example fidelity > FIDELITY.md`.

fn main() {
    print!("{}", seam_emu::fidelity::to_markdown());
}

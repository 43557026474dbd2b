//! Networks for a guest's virtio card: one in user mode ([`user`]), and a tap device of the host ([`tap`]).

mod cable;
pub mod tap;
pub mod user;

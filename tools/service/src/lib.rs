//! TDs behind REST APIs on a UNIX socket.
//!
//! The clients that drive Cloud Hypervisor (Kata Containers, libvirt, `ch-remote`) drive a TD by its API. One process has one
//! VM behind one socket: [`http`] is the protocol of the socket, [`api`] its endpoints, [`config`] what a VM is asked for with,
//! [`vm`] the VM itself, and [`serve`] the process.
//!
//! Our own API is of many TDs: [`td_api`] are its endpoints, [`fleet`] the TDs, their limits and what survives the service, and
//! [`worker`] the process that each has, which confines itself.

pub mod api;
pub mod config;
#[cfg(test)]
mod described;
pub mod fleet;
pub mod http;
mod logged;
mod process;
pub mod td_api;
pub mod vm;
pub mod worker;

pub use process::serve;

//! A TD behind Cloud Hypervisor's REST API.
//!
//! The clients that drive Cloud Hypervisor (Kata Containers, libvirt, `ch-remote`) drive a TD by it. One process has one VM
//! behind one socket: [`http`] is the protocol of the socket, [`api`] its endpoints, [`config`] what a VM is asked for with,
//! [`vm`] the VM itself, and [`serve`] the process.

pub mod api;
pub mod config;
pub mod http;
mod process;
pub mod vm;

pub use process::serve;

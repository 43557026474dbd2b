//! A TD behind Cloud Hypervisor's REST API.
//!
//! The clients that drive Cloud Hypervisor (Kata Containers, libvirt, `ch-remote`) drive a TD by it: [`http`] is the
//! protocol.

pub mod http;

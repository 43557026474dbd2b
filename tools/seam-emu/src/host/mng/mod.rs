//! TDH.MNG.*: the life of a TD as a whole.

pub(super) mod addcx;
pub(super) mod create;
pub(super) mod key_config;
pub(super) mod key_freeid;
pub(super) mod vpflushdone;

//! What the manuals say, as tables: paging rights, event delivery, far transfers, control registers, exits.

mod address_spaces;
mod avx;
mod breakpoints;
mod compatibility;
mod devices;
mod engines;
mod events;
mod every_encoding;
mod exits;
mod litmus;
mod paging;
mod ports;
mod protection_keys;
mod registers;
mod restart;
mod rings;
mod sharing;
mod smoke;
mod stepping;
mod stop_points;
mod stores;
mod transfers;
mod translations;
mod unprivileged;
mod x87;

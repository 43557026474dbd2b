//! Arithmetic against an exact reference in big integers, and cases of the manual.

mod arithmetic;
mod conversions;
mod operands;
mod reference;
mod special;
mod transcendental;

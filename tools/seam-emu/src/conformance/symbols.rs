//! Random values of a recording by name: a call binds what a register holds, later calls and keys use it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tdx_module_iface::{Gprs, Reg};

/// The values that names stand for, in one replay.
#[derive(Clone, Debug, Default)]
pub struct Symbols(BTreeMap<Arc<str>, u64>);

impl Symbols {
    /// A name stands for this value from now on.
    pub fn bind(&mut self, name: &Arc<str>, value: u64) {
        self.0.insert(Arc::clone(name), value);
    }

    fn get(&self, name: &Arc<str>) -> Result<u64, UnboundSymbol> {
        self.0.get(name).copied().ok_or_else(|| UnboundSymbol(Arc::clone(name)))
    }
}

/// A name that no call bound.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnboundSymbol(pub Arc<str>);

impl std::fmt::Display for UnboundSymbol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "nothing is bound to ${}", self.0)
    }
}

/// A number in a recording: written out, or a name plus an offset (modulo 2^64).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Number {
    /// Written out.
    Literal(u64),
    /// What was bound to a name, plus a number.
    Symbol {
        /// The name, without its dollar sign.
        name: Arc<str>,
        /// What is added.
        add: u64,
    },
}

impl Number {
    /// The value.
    ///
    /// # Errors
    /// [`UnboundSymbol`].
    pub fn value(&self, symbols: &Symbols) -> Result<u64, UnboundSymbol> {
        match self {
            Self::Literal(value) => Ok(*value),
            Self::Symbol { name, add } => Ok(symbols.get(name)?.wrapping_add(*add)),
        }
    }
}

/// Values of registers, some of which may be names.
#[derive(Clone, Debug, Default)]
pub struct Registers {
    literal: Gprs,
    named: Vec<(Reg, Number)>,
}

impl Registers {
    /// Gives a register a value.
    pub fn set(&mut self, reg: Reg, value: Number) {
        match value {
            Number::Literal(value) => self.literal.set(reg, value),
            named @ Number::Symbol { .. } => self.named.push((reg, named)),
        }
    }

    /// The values; registers that are not named are zero.
    ///
    /// # Errors
    /// [`UnboundSymbol`].
    pub fn values(&self, symbols: &Symbols) -> Result<Gprs, UnboundSymbol> {
        let mut gprs = self.literal;
        for (reg, number) in &self.named {
            gprs.set(*reg, number.value(symbols)?);
        }
        Ok(gprs)
    }
}

impl From<Gprs> for Registers {
    fn from(literal: Gprs) -> Self {
        Self { literal, named: Vec::new() }
    }
}

/// Names that get the values of registers after a call that succeeds.
pub type Bindings = Vec<(Reg, Arc<str>)>;

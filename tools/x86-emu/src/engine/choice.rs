//! Engines by name, where the choice is made at run time.

use core::fmt;
use core::str::FromStr;

use tdvisor_base::Pfn;
use tdvisor_base::sync::AtomicBool;

use super::{Compiler, Engine, Interpreter};
use crate::bus::Bus;
use crate::cpu::{Budget, Cpu};
use crate::exits::Exit;
use x86_jit::Unavailable;

/// Which engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum EngineKind {
    /// [`Interpreter`].
    #[default]
    Interpreter,
    /// [`Compiler`].
    Compiler,
}

/// No engine has this name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnknownEngine;

impl EngineKind {
    /// Every engine.
    pub const ALL: [Self; 2] = [Self::Interpreter, Self::Compiler];

    /// The engine's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interpreter => "interpreter",
            Self::Compiler => "compiler",
        }
    }

    /// A new engine. Where there is no memory for code ([`Self::check`]) it is an interpreter.
    pub fn engine(self) -> AnyEngine {
        match self {
            Self::Interpreter => AnyEngine::Interpreter(Interpreter::new()),
            Self::Compiler => Compiler::new().map_or_else(
                |_| AnyEngine::Interpreter(Interpreter::new()),
                |compiler| AnyEngine::Compiler(Box::new(compiler)),
            ),
        }
    }

    /// A new engine for tests: a compiler compiles everything that it meets before it runs it.
    ///
    /// # Errors
    /// Why this machine does not let such an engine run.
    pub fn eager(self) -> Result<AnyEngine, Unavailable> {
        Ok(match self {
            Self::Interpreter => AnyEngine::Interpreter(Interpreter::new()),
            Self::Compiler => AnyEngine::Compiler(Box::new(Compiler::eager()?)),
        })
    }

    /// Whether this machine lets such an engine run.
    ///
    /// # Errors
    /// Why it does not.
    pub fn check(self) -> Result<(), Unavailable> {
        match self {
            Self::Interpreter => Ok(()),
            Self::Compiler => Compiler::new().map(drop),
        }
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for UnknownEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("engines are called")?;
        EngineKind::ALL.iter().try_for_each(|kind| write!(f, " '{kind}'"))
    }
}

impl core::error::Error for UnknownEngine {}

impl FromStr for EngineKind {
    type Err = UnknownEngine;

    fn from_str(name: &str) -> Result<Self, UnknownEngine> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or(UnknownEngine)
    }
}

/// An engine of any kind.
#[derive(Debug)]
pub enum AnyEngine {
    /// See [`Interpreter`].
    Interpreter(Interpreter),
    /// See [`Compiler`].
    Compiler(Box<Compiler>),
}

impl Engine for AnyEngine {
    fn run<B: Bus>(
        &mut self,
        cpu: &mut Cpu,
        bus: &mut B,
        budget: Budget,
        kick: &AtomicBool,
    ) -> Exit<B::Refusal> {
        match self {
            Self::Interpreter(engine) => engine.run(cpu, bus, budget, kick),
            Self::Compiler(engine) => engine.run(cpu, bus, budget, kick),
        }
    }

    fn reachable_code<'a>(&'a self, cpu: &'a Cpu) -> impl Iterator<Item = (u64, Pfn)> + 'a {
        let (interpreter, compiler) = match self {
            Self::Interpreter(engine) => (Some(engine.reachable_code(cpu)), None),
            Self::Compiler(engine) => (None, Some(engine.reachable_code(cpu))),
        };
        interpreter.into_iter().flatten().chain(compiler.into_iter().flatten())
    }
}

//! The Test Anything Protocol on the console.

use core::fmt;

use guest_rt::println;

/// The lines so far.
pub struct Tap {
    tests: u32,
    failed: u32,
}

impl Tap {
    /// No line yet.
    pub fn new() -> Self {
        Self { tests: 0, failed: 0 }
    }

    /// One line: what was checked, and what was found where that is not right.
    pub fn result(&mut self, what: fmt::Arguments<'_>, found: Result<(), Mismatch>) {
        self.tests += 1;
        match found {
            Ok(()) => println!("ok {} - {what}", self.tests),
            Err(mismatch) => {
                self.failed += 1;
                println!("not ok {} - {what}: {mismatch}", self.tests);
            }
        }
    }

    /// One line of a condition.
    pub fn holds(&mut self, what: fmt::Arguments<'_>, holds: bool) {
        self.result(what, if holds { Ok(()) } else { Err(Mismatch::Otherwise) });
    }

    /// The plan; how many checks failed.
    pub fn finish(self) -> u32 {
        println!("1..{}", self.tests);
        println!("# {} of {} failed", self.failed, self.tests);
        self.failed
    }
}

/// What is wrong.
#[derive(Clone, Copy)]
pub enum Mismatch {
    /// A value has these bits wrong.
    Bits {
        /// The value.
        found: u64,
        /// The bits.
        wrong: u64,
    },
    /// An instruction came to something else.
    Came {
        /// What the instruction came to.
        found: Came,
        /// What the instruction should have come to.
        expected: Came,
    },
    /// What was looked at is otherwise.
    Otherwise,
}

/// What an instruction comes to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Came {
    /// The instruction was carried out.
    Done,
    /// #GP.
    Fault,
    /// #VE.
    Exception,
    /// The instruction caused another exception.
    Vector(u64),
}

impl fmt::Display for Came {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("carried out"),
            Self::Fault => f.write_str("#GP"),
            Self::Exception => f.write_str("#VE"),
            Self::Vector(vector) => write!(f, "exception {vector}"),
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bits { found, wrong } => write!(f, "{found:#x}, wrong in {wrong:#x}"),
            Self::Came { found, expected } => write!(f, "{found}, expected {expected}"),
            Self::Otherwise => f.write_str("it does not hold"),
        }
    }
}

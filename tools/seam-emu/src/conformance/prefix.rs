//! Starting states: the final states of prefix sequences, replayed once each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::machine::{Machine, MachineSnapshot};

use super::error::InputError;
use super::model::{After, Sequence};
use super::replay::{self, Balance};
use super::source::{PREFIX_FILES, Sequences};
use super::symbols::Symbols;

/// Most prefixes of one folder: all of them are in memory at once, and a chain of them is followed by recursion.
const MAX_PREFIXES: usize = 1024;

/// One prefix: how its replay went and the state that it left.
pub struct Prefix {
    pub sequence: Sequence,
    pub file: Arc<PathBuf>,
    state: OnceLock<PrefixState>,
}

/// The result of replaying a prefix.
pub struct PrefixState {
    /// How its own calls went; `None` where its own starting state could not be reached.
    pub balance: Result<Balance, String>,
    snapshot: Option<MachineSnapshot>,
    symbols: Symbols,
}

/// The prefixes of one folder, by id.
#[derive(Default)]
pub struct Prefixes {
    by_id: BTreeMap<Arc<str>, Prefix>,
}

impl Prefixes {
    /// Reads the prefix file of a folder, if there is one.
    pub fn beside(folder: &Path) -> Result<Self, InputError> {
        let mut prefixes = Self::default();
        for name in PREFIX_FILES {
            let path = folder.join(name);
            if path.is_file() {
                prefixes.read(&path)?;
                break;
            }
        }
        Ok(prefixes)
    }

    fn read(&mut self, path: &Path) -> Result<(), InputError> {
        let file = Arc::new(path.to_owned());
        for sequence in Sequences::open(path)? {
            let sequence = sequence?;
            let line = sequence.line;
            if self.by_id.len() >= MAX_PREFIXES {
                let problem = format!("more than {MAX_PREFIXES} prefixes");
                return Err(InputError::Line { path: path.to_owned(), line, problem });
            }
            let prefix = Prefix { file: Arc::clone(&file), state: OnceLock::new(), sequence };
            let id = Arc::clone(&prefix.sequence.id);
            if self.by_id.insert(Arc::clone(&id), prefix).is_some() {
                let problem = format!("prefix {id} is defined twice");
                return Err(InputError::Line { path: path.to_owned(), line, problem });
            }
        }
        Ok(())
    }

    /// All prefixes.
    pub fn iter(&self) -> impl Iterator<Item = &Prefix> {
        self.by_id.values()
    }

    /// A machine in the state that `sequence` starts from, and what the names bound so far stand for.
    ///
    /// # Errors
    /// In words, why there is none.
    pub fn starting_machine(&self, sequence: &Sequence) -> Result<(Machine, Symbols), String> {
        self.machine_after(sequence, self.by_id.len())
    }

    /// How the replay of a prefix went. `depth` bounds the chain of prefixes: one that comes back to itself has
    /// no starting state.
    pub fn state<'p>(&'p self, prefix: &'p Prefix) -> &'p PrefixState {
        self.state_within(prefix, self.by_id.len())
    }

    fn state_within<'p>(&'p self, prefix: &'p Prefix, depth: usize) -> &'p PrefixState {
        if depth == 0 {
            static CIRCLE: OnceLock<PrefixState> = OnceLock::new();
            return CIRCLE.get_or_init(|| PrefixState {
                balance: Err("the chain of prefixes comes back to itself".to_owned()),
                snapshot: None,
                symbols: Symbols::default(),
            });
        }
        if let Some(state) = prefix.state.get() {
            return state;
        }
        // Computed outside the cell: a circular chain must not wait for itself. Two threads may do it twice.
        let state = match self.machine_after(&prefix.sequence, depth - 1) {
            Err(why) => PrefixState { balance: Err(why), snapshot: None, symbols: Symbols::default() },
            Ok((mut machine, symbols)) => {
                let (balance, symbols) = replay::replay(&machine, &prefix.sequence, symbols);
                let snapshot = if balance.abandoned { None } else { machine.snapshot().ok() };
                PrefixState { balance: Ok(balance), snapshot, symbols }
            }
        };
        prefix.state.get_or_init(|| state)
    }

    fn machine_after(&self, sequence: &Sequence, depth: usize) -> Result<(Machine, Symbols), String> {
        let id = match &sequence.after {
            After::Reset => return Ok((replay::power_on(&sequence.platform), Symbols::default())),
            After::Prefix(id) => id,
        };
        let prefix = self.by_id.get(id).ok_or_else(|| format!("there is no prefix {id}"))?;
        let state = self.state_within(prefix, depth);
        match (&state.snapshot, &state.balance) {
            (Some(snapshot), _) => Ok((snapshot.to_machine(), state.symbols.clone())),
            (None, Err(why)) => Err(format!("prefix {id}: {why}")),
            (None, Ok(_)) => Err(format!("prefix {id} went another way than recorded")),
        }
    }
}

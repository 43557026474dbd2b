//! Names that the guest holds.
//!
//! A node is a name in another node; node 1 is the folder itself. The guest holds a node as often as it was told of it, and
//! says when it lets go. Nothing of the host is held: a name that is gone is seen when it is used.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use rustix::io::Errno;

/// Nodes at one time.
pub const NODES_MAX: usize = 1 << 18;
/// Components of a path.
const DEPTH_MAX: usize = 1024;

/// The folder itself.
pub(super) const ROOT: u64 = 1;

struct Node {
    parent: u64,
    name: OsString,
    /// How often the guest holds it.
    held: u64,
}

/// Every file and folder that the guest holds.
pub(super) struct Nodes {
    nodes: BTreeMap<u64, Node>,
    by_name: BTreeMap<(u64, OsString), u64>,
    last: u64,
}

impl Nodes {
    pub(super) const fn new() -> Self {
        Self { nodes: BTreeMap::new(), by_name: BTreeMap::new(), last: ROOT }
    }

    /// The path of a node, from the folder.
    pub(super) fn path(&self, node: u64) -> Result<PathBuf, Errno> {
        let (mut at, mut names) = (node, Vec::new());
        while at != ROOT {
            if names.len() >= DEPTH_MAX {
                return Err(Errno::NAMETOOLONG);
            }
            let node = self.nodes.get(&at).ok_or(Errno::STALE)?;
            names.push(&node.name);
            at = node.parent;
        }
        if names.is_empty() { Ok(PathBuf::from(".")) } else { Ok(names.into_iter().rev().collect()) }
    }

    /// The node of a name, which the guest holds once more.
    pub(super) fn hold(&mut self, parent: u64, name: &OsStr) -> Result<u64, Errno> {
        let key = (parent, name.to_owned());
        if let Some(number) = self.by_name.get(&key)
            && let Some(node) = self.nodes.get_mut(number)
        {
            node.held = node.held.saturating_add(1);
            return Ok(*number);
        }
        if self.nodes.len() >= NODES_MAX {
            return Err(Errno::NOMEM);
        }
        self.last += 1;
        self.nodes.insert(self.last, Node { parent, name: name.to_owned(), held: 1 });
        self.by_name.insert(key, self.last);
        Ok(self.last)
    }

    /// The guest lets go of a node so often.
    pub(super) fn forget(&mut self, number: u64, times: u64) {
        let Some(node) = self.nodes.get_mut(&number) else { return };
        node.held = node.held.saturating_sub(times);
        if node.held == 0
            && let Some(Node { parent, name, .. }) = self.nodes.remove(&number)
        {
            self.by_name.remove(&(parent, name));
        }
    }

    /// The guest lets go of all.
    pub(super) fn clear(&mut self) {
        self.nodes.clear();
        self.by_name.clear();
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.nodes.len()
    }
}

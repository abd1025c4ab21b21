//! A map that evicts the least recently used entry, like the kernel's LRU hash.

use std::collections::HashMap;

use super::{FlowKey, random::KeyHash};

const END: u32 = u32::MAX;

/// A value in the list of uses: `newer` and `older` are its neighbours.
#[derive(Debug)]
struct Node<V> {
    key: FlowKey,
    value: V,
    newer: u32,
    older: u32,
}

/// The map; `newest` and `oldest` are the ends of the list.
#[derive(Debug)]
pub(crate) struct Lru<V> {
    capacity: usize,
    index: HashMap<FlowKey, u32, KeyHash>,
    nodes: Vec<Node<V>>,
    free: Vec<u32>,
    newest: u32,
    oldest: u32,
}

impl<V: Copy> Lru<V> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            index: HashMap::default(),
            nodes: Vec::new(),
            free: Vec::new(),
            newest: END,
            oldest: END,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// The value, which counts as used.
    pub(crate) fn get(&mut self, key: FlowKey) -> Option<&mut V> {
        let at = *self.index.get(&key)?;
        self.unlink(at);
        self.link(at);
        Some(&mut self.nodes[at as usize].value)
    }

    /// Inserts or replaces, and forgets the oldest where there is no room.
    pub(crate) fn insert(&mut self, key: FlowKey, value: V) {
        if let Some(old) = self.get(key) {
            *old = value;
            return;
        }
        if self.index.len() == self.capacity {
            let oldest = self.nodes[self.oldest as usize].key;
            self.remove(oldest);
        }
        let node = Node {
            key,
            value,
            newer: END,
            older: END,
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.nodes[at as usize] = node;
                at
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as u32
            }
        };
        self.index.insert(key, at);
        self.link(at);
    }

    pub(crate) fn remove(&mut self, key: FlowKey) {
        if let Some(at) = self.index.remove(&key) {
            self.unlink(at);
            self.free.push(at);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (FlowKey, V)> {
        self.index
            .iter()
            .map(|(key, at)| (*key, self.nodes[*at as usize].value))
    }

    fn unlink(&mut self, at: u32) {
        let Node { newer, older, .. } = self.nodes[at as usize];
        match newer {
            END => self.newest = older,
            newer => self.nodes[newer as usize].older = older,
        }
        match older {
            END => self.oldest = newer,
            older => self.nodes[older as usize].newer = newer,
        }
    }

    fn link(&mut self, at: u32) {
        let node = &mut self.nodes[at as usize];
        (node.newer, node.older) = (END, self.newest);
        match self.newest {
            END => self.oldest = at,
            newest => self.nodes[newest as usize].newer = at,
        }
        self.newest = at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_not_used_for_longest_is_forgotten() {
        let mut lru = Lru::new(3);
        for key in 1..=3 {
            lru.insert(key, key);
        }
        assert_eq!(lru.get(1), Some(&mut 1));
        lru.insert(4, 4);
        lru.remove(3);
        lru.insert(5, 5);
        lru.insert(6, 6);
        let mut keys: Vec<_> = lru.iter().map(|(key, _)| key).collect();
        keys.sort_unstable();
        assert_eq!(keys, [4, 5, 6]);
        assert_eq!(lru.len(), 3);
    }
}

//! A snapshot of the present state, shared by the task that writes it and the handles that read it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::{status::CheckStatus, target::TargetId};

/// The status of each check by backend, in the order of their names. Names are stored apart from the statuses, which
/// change all the time: a status is written by its index, without a search, and copies share the names.
#[derive(Clone, PartialEq, Debug)]
pub struct CheckStatuses<I> {
    ids: Arc<[I]>,
    /// In the same places.
    statuses: Vec<CheckStatus<I>>,
}

impl<I> Default for CheckStatuses<I> {
    fn default() -> Self {
        Self {
            ids: Arc::default(),
            statuses: Vec::new(),
        }
    }
}

impl<I: TargetId> CheckStatuses<I> {
    /// The status of a backend.
    pub fn get(&self, id: &I) -> Option<&CheckStatus<I>> {
        self.statuses.get(self.place(id)?)
    }

    /// Whether there is one of a backend.
    pub fn contains_key(&self, id: &I) -> bool {
        self.place(id).is_some()
    }

    /// All statuses with their backends.
    pub fn iter(&self) -> impl Iterator<Item = (&I, &CheckStatus<I>)> {
        self.ids.iter().zip(&self.statuses)
    }

    /// The backends.
    pub fn keys(&self) -> impl Iterator<Item = &I> {
        self.ids.iter()
    }

    /// All of them.
    pub fn values(&self) -> impl Iterator<Item = &CheckStatus<I>> {
        self.statuses.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.statuses.len()
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.statuses.is_empty()
    }

    fn place(&self, id: &I) -> Option<usize> {
        self.ids.binary_search(id).ok()
    }

    /// That which stands in a place, counted in the order of names.
    pub(super) fn at(&mut self, place: usize) -> Option<&mut CheckStatus<I>> {
        self.statuses.get_mut(place)
    }
}

impl<I> From<BTreeMap<I, CheckStatus<I>>> for CheckStatuses<I> {
    fn from(statuses: BTreeMap<I, CheckStatus<I>>) -> Self {
        let (ids, statuses): (Vec<I>, Vec<CheckStatus<I>>) = statuses.into_iter().unzip();
        Self {
            ids: ids.into(),
            statuses,
        }
    }
}

#[cfg(test)]
impl<I: TargetId> std::ops::Index<&I> for CheckStatuses<I> {
    type Output = CheckStatus<I>;

    /// Panics if there is none.
    fn index(&self, id: &I) -> &CheckStatus<I> {
        let place = self.place(id).unwrap_or(usize::MAX);
        &self.statuses[place]
    }
}

/// Status of all checks.
pub(super) type StatusBoard<I> = Board<CheckStatuses<I>>;

/// State shared by a task, which writes, and its handles, which read. A snapshot is no copy; the task copies the state
/// before its next write only while a snapshot exists.
#[derive(Clone, Debug, Default)]
pub(super) struct Board<T>(Arc<Mutex<Arc<T>>>);

impl<T: Clone> Board<T> {
    /// The present state.
    pub(super) fn snapshot(&self) -> Arc<T> {
        // A panic elsewhere cannot leave it half written: each write is one operation.
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes it.
    pub(super) fn write<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        change(Arc::make_mut(
            &mut self.0.lock().unwrap_or_else(PoisonError::into_inner),
        ))
    }
}

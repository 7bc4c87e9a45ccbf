//! Things under small numbers: looked up in constant time, numbered in the order of arrival.

use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

/// The number of a `T` in its [`Arena`]; valid from `insert` until `remove`.
pub(super) struct Ix<T>(u32, PhantomData<fn() -> T>);

impl<T> Clone for Ix<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Ix<T> {}
impl<T> PartialEq for Ix<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<T> Eq for Ix<T> {}
impl<T> PartialOrd for Ix<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Ix<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

/// A growing table that reuses the numbers of what was removed.
pub(super) struct Arena<T> {
    slots: Vec<Option<T>>,
    free: Vec<Ix<T>>,
}
impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}
impl<T> Arena<T> {
    pub(super) fn insert(&mut self, value: T) -> Ix<T> {
        if let Some(ix) = self.free.pop() {
            if let Some(slot) = self.slots.get_mut(ix.0 as usize) {
                *slot = Some(value);
            }
            return ix;
        }
        let ix = Ix(u32::try_from(self.slots.len()).unwrap_or(u32::MAX), PhantomData);
        self.slots.push(Some(value));
        ix
    }
    pub(super) fn remove(&mut self, ix: Ix<T>) {
        if self.slots.get_mut(ix.0 as usize).and_then(Option::take).is_some() {
            self.free.push(ix);
        }
    }
}
impl<T> Index<Ix<T>> for Arena<T> {
    type Output = T;
    fn index(&self, ix: Ix<T>) -> &T {
        match self.slots.get(ix.0 as usize) {
            Some(Some(value)) => value,
            _ => unreachable!("a number outlived what it names"),
        }
    }
}
impl<T> IndexMut<Ix<T>> for Arena<T> {
    fn index_mut(&mut self, ix: Ix<T>) -> &mut T {
        match self.slots.get_mut(ix.0 as usize) {
            Some(Some(value)) => value,
            _ => unreachable!("a number outlived what it names"),
        }
    }
}

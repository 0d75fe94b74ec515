//! What a client waits for, in its order: as many idle clients have nothing here, the list is there from the first request
//! to the last reply only.

use std::collections::VecDeque;

use super::Slot;

/// A list of slots; one that is empty may have no memory.
#[derive(Default)]
#[expect(clippy::box_collection, reason = "idle clients are many: theirs is one word")]
pub(crate) struct Slots(Option<Box<VecDeque<Slot>>>);

impl Slots {
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |slots| slots.len())
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it has memory.
    #[inline]
    pub(super) fn has_memory(&self) -> bool {
        self.0.is_some()
    }

    /// Places that there is memory for.
    pub(crate) fn capacity(&self) -> usize {
        self.0.as_ref().map_or(0, |slots| slots.capacity())
    }

    #[inline]
    pub(super) fn push_back(&mut self, slot: Slot) {
        self.0.get_or_insert_default().push_back(slot);
    }

    #[inline]
    pub(super) fn pop_front(&mut self) -> Option<Slot> {
        self.0.as_mut()?.pop_front()
    }

    #[inline]
    pub(super) fn front(&self) -> Option<&Slot> {
        self.0.as_ref()?.front()
    }

    #[inline]
    pub(super) fn front_mut(&mut self) -> Option<&mut Slot> {
        self.0.as_mut()?.front_mut()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut Slot> {
        self.0.as_mut()?.get_mut(at)
    }
}

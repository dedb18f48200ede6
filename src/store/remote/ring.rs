//! A queue whose entries are found by number.

use std::collections::VecDeque;

/// Entries in the order in which they were added. Each has a number, by which it can be taken out
/// of the middle. Numbers are never used twice.
#[derive(Debug)]
pub(super) struct Ring<V> {
    /// The number of the first slot.
    first: u64,
    slots: VecDeque<Option<V>>,
    len: usize,
}

impl<V> Ring<V> {
    pub(super) fn push(&mut self, value: V) -> u64 {
        let number = self.next_number();
        self.slots.push_back(Some(value));
        self.len += 1;
        number
    }

    /// The number that the next entry will have.
    pub(super) fn next_number(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    pub(super) fn get(&self, number: u64) -> Option<&V> {
        self.slots.get(self.index(number)?)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut V> {
        let index = self.index(number)?;
        self.slots.get_mut(index)?.as_mut()
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<V> {
        let index = self.index(number)?;
        let taken = self.slots.get_mut(index)?.take()?;
        self.len -= 1;
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.first += 1;
        }
        Some(taken)
    }

    /// The oldest entry and its number.
    pub(super) fn oldest(&self) -> Option<(u64, &V)> {
        // `remove` leaves no empty slot at the front.
        Some((self.first, self.slots.front()?.as_ref()?))
    }

    pub(super) fn pop(&mut self) -> Option<V> {
        self.remove(self.first)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn index(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_sub(self.first)?).ok()
    }
}

impl<V> Default for Ring<V> {
    fn default() -> Self {
        Self { first: 0, slots: VecDeque::new(), len: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::Ring;

    #[test]
    fn an_entry_is_found_by_its_number_until_it_is_taken() {
        let mut ring = Ring::default();
        let numbers: Vec<_> = ('a'..='e').map(|value| ring.push(value)).collect();
        assert_eq!(ring.remove(numbers[2]), Some('c'));
        assert_eq!(ring.get(numbers[2]), None);
        assert_eq!(ring.remove(numbers[2]), None);
        assert_eq!(ring.oldest(), Some((numbers[0], &'a')));
        assert_eq!(
            (ring.remove(numbers[1]), ring.pop(), ring.pop()),
            (Some('b'), Some('a'), Some('d'))
        );
        assert_eq!(ring.get(numbers[4]), Some(&'e'));
        assert_eq!(ring.len(), 1);
        assert_eq!((ring.pop(), ring.pop()), (Some('e'), None));
        assert_eq!(ring.get(numbers[4]), None);
        assert!(!numbers.contains(&ring.push('f')), "a number is never used twice");
    }
}

//! A table that all threads share.

use std::sync::OnceLock;

use bytes::Bytes;
use http::HeaderValue;

/// The number of places.
const PLACES: usize = 256;

/// A table with a fixed number of places, which can be read without a lock. A key has one place,
/// which belongs to the first key that takes it.
pub(super) struct Shared<K, T> {
    places: [OnceLock<(K, T)>; PLACES],
}

impl<K: PartialEq, T> Shared<K, T> {
    pub(super) const fn new() -> Self {
        Self { places: [const { OnceLock::new() }; PLACES] }
    }

    #[inline]
    pub(super) fn get(&self, hash: usize, key: &K) -> Option<&T> {
        let (of, text) = self.places[hash % PLACES].get()?;
        (of == key).then_some(text)
    }

    /// Adds a text, unless it is there. `None` if the place is taken.
    pub(super) fn add(&self, hash: usize, key: K, render: impl FnOnce() -> T) -> Option<&T>
    where
        K: Copy,
    {
        let (of, text) = self.places[hash % PLACES].get_or_init(|| (key, render()));
        (*of == key).then_some(text)
    }
}

/// Memory that is never freed, so texts in it have no reference count.
pub(super) struct Leaked(&'static mut [u8]);

impl Leaked {
    pub(super) fn with_room(bytes: usize) -> Self {
        Self(vec![0; bytes].leak())
    }

    pub(super) fn value(&mut self, value: &HeaderValue) -> HeaderValue {
        HeaderValue::from_maybe_shared(self.text(value.as_bytes())).expect("it is valid already")
    }

    /// A copy of the text.
    ///
    /// # Panics
    /// If there is no room for it.
    pub(super) fn text(&mut self, text: &[u8]) -> Bytes {
        let (place, free) = std::mem::take(&mut self.0).split_at_mut(text.len());
        self.0 = free;
        place.copy_from_slice(text);
        Bytes::from_static(place)
    }
}

#[cfg(test)]
mod tests {
    use super::{PLACES, Shared};

    #[test]
    fn a_place_belongs_to_the_first_key_that_takes_it() {
        let table = Shared::new();
        for key in 0..PLACES {
            assert_eq!(table.get(key, &key), None);
            assert_eq!(table.add(key, key, || key.to_string()), Some(&key.to_string()));
        }
        for key in 0..PLACES {
            let other = key + PLACES;
            assert_eq!(table.add(other, other, || unreachable!()), None::<&String>);
            assert_eq!(table.get(other, &other), None);
            assert_eq!(table.get(key, &key), Some(&key.to_string()));
        }
    }
}

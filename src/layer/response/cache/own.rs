//! A table of one thread.

use std::mem;

/// The number of places.
const PLACES: usize = 16;

/// How many texts can be rendered for reuse in a row.
const FIRST: u32 = 2;

/// The number of lookups after which one more text may be rendered for reuse. Rendering allocates
/// up to five times, and a lookup must allocate less than once in a thousand times.
const INTERVAL: u32 = 16_384;

/// A table with a fixed number of places. A key has one place, which it shares with other keys.
pub(super) struct Own<K, T> {
    places: Box<[Place<K, T>]>,
    /// How many places may be filled, times `INTERVAL`. Each lookup adds 1, and the credit is at
    /// most `FIRST * INTERVAL`.
    credit: u32,
}

/// A place for a text.
pub(super) struct Place<K, T> {
    rendered: Option<(K, T)>,
    /// Whether the text has been found since another one was looked for here. If so, it stays.
    in_use: bool,
}

/// What is found in a table.
pub(super) enum Found<'a, K, T> {
    /// The text.
    Text(&'a T),
    /// Not the text, but a place for it.
    Room(&'a mut Place<K, T>),
    /// Neither.
    Nothing,
}

impl<K: PartialEq, T> Own<K, T> {
    pub(super) fn find(&mut self, hash: usize, key: &K) -> Found<'_, K, T> {
        self.credit = (self.credit + 1).min(FIRST * INTERVAL);
        let place = &mut self.places[hash % PLACES];
        let found = place.rendered.as_ref().is_some_and(|(of, _)| of == key);
        let in_use = mem::replace(&mut place.in_use, found);
        if !found && !in_use && self.credit >= INTERVAL {
            self.credit -= INTERVAL;
            return Found::Room(place);
        }
        match &place.rendered {
            Some((_, text)) if found => Found::Text(text),
            _ => Found::Nothing,
        }
    }
}

impl<K, T> Default for Own<K, T> {
    fn default() -> Self {
        let empty = |_| Place { rendered: None, in_use: false };
        Self { places: (0..PLACES).map(empty).collect(), credit: FIRST * INTERVAL }
    }
}

impl<K, T> Place<K, T> {
    /// Puts a text there, in the place of the one that was there.
    pub(super) fn put(&mut self, key: K, text: T) -> &T {
        &self.rendered.insert((key, text)).1
    }
}

#[cfg(test)]
mod tests {
    use super::{FIRST, Found, INTERVAL, Own, PLACES};

    /// Looks for a key and puts it in if there is room. Whether it is in the table then.
    fn look(table: &mut Own<usize, usize>, key: usize) -> bool {
        match table.find(key, &key) {
            Found::Text(text) => *text == key,
            Found::Room(place) => *place.put(key, key) == key,
            Found::Nothing => false,
        }
    }

    #[test]
    fn a_text_in_use_stays_and_any_other_makes_room() {
        let mut table = Own::default();
        let (first, second) = (1, 1 + PLACES);
        assert!(look(&mut table, first));
        assert!(look(&mut table, first));
        // The first key has been found, so it stays for once.
        assert!(!look(&mut table, second));
        assert!(look(&mut table, first));
        assert!(!look(&mut table, second));
        assert!(look(&mut table, second));
        assert!(look(&mut table, second));
    }

    #[test]
    fn texts_are_seldom_rendered_for_reuse() {
        let mut table = Own::<_, ()>::default();
        let lookups = 100 * INTERVAL;
        // Two keys for each place take turns.
        let keys = (0..2 * PLACES).cycle().take(lookups as usize);
        let rendered = keys.filter(|key| matches!(table.find(*key, key), Found::Room(_))).count();
        assert!((100..=100 + FIRST as usize).contains(&rendered), "{rendered}");
    }
}

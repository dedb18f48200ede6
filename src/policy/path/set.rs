//! Small sets of numbers.

/// A set of numbers.
pub(super) trait Set: Copy + PartialEq {
    const EMPTY: Self;

    fn insert(&mut self, number: u32);

    fn extend(&mut self, other: &Self);

    fn contains(&self, number: u32) -> bool;

    /// Whether a number was inserted for which there was no room.
    fn is_beyond(&self) -> bool;

    /// The numbers: those below 64 in ascending order, then the others.
    fn iter(&self) -> impl Iterator<Item = u32>;

    fn of(number: u32) -> Self {
        let mut set = Self::EMPTY;
        set.insert(number);
        set
    }
}

/// A set of numbers below 64.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct SmallSet(u64);

/// A set of any numbers. Of those from 64 on it has room for a few.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct LargeSet {
    small: SmallSet,
    large: [u32; ROOM],
    count: u8,
    is_beyond: bool,
}

const ROOM: usize = 24;

impl Set for SmallSet {
    const EMPTY: Self = Self(0);

    #[inline]
    fn insert(&mut self, number: u32) {
        self.0 |= 1_u64.wrapping_shl(number);
    }

    #[inline]
    fn extend(&mut self, other: &Self) {
        self.0 |= other.0;
    }

    #[inline]
    fn contains(&self, number: u32) -> bool {
        self.0 & 1_u64.wrapping_shl(number) != 0
    }

    #[inline]
    fn is_beyond(&self) -> bool {
        false
    }

    #[inline]
    fn iter(&self) -> impl Iterator<Item = u32> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let number = left.trailing_zeros();
            left &= left.wrapping_sub(1);
            (number < 64).then_some(number)
        })
    }
}

impl Set for LargeSet {
    const EMPTY: Self =
        Self { small: SmallSet::EMPTY, large: [0; ROOM], count: 0, is_beyond: false };

    fn insert(&mut self, number: u32) {
        if number < 64 {
            return self.small.insert(number);
        }
        let count = usize::from(self.count);
        if self.large[..count].contains(&number) {
            return;
        }
        match self.large.get_mut(count) {
            Some(place) => {
                *place = number;
                self.count += 1;
            }
            None => self.is_beyond = true,
        }
    }

    fn extend(&mut self, other: &Self) {
        self.small.extend(&other.small);
        self.is_beyond |= other.is_beyond;
        for number in &other.large[..usize::from(other.count)] {
            self.insert(*number);
        }
    }

    fn contains(&self, number: u32) -> bool {
        if number < 64 {
            return self.small.contains(number);
        }
        self.large[..usize::from(self.count)].contains(&number)
    }

    fn is_beyond(&self) -> bool {
        self.is_beyond
    }

    fn iter(&self) -> impl Iterator<Item = u32> {
        self.small.iter().chain(self.large[..usize::from(self.count)].iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers<S: Set>(numbers: impl IntoIterator<Item = u32>) -> S {
        numbers.into_iter().fold(S::EMPTY, |mut set, number| {
            set.insert(number);
            set
        })
    }

    #[test]
    fn a_set_has_each_number_once() {
        let small: SmallSet = numbers([63, 0, 5, 5, 63]);
        assert!(small.iter().eq([0, 5, 63]));
        assert!(small.contains(63) && !small.contains(62));

        let mut large: LargeSet = numbers([64, 63, 0, 1000, 64]);
        assert!(large.iter().eq([0, 63, 64, 1000]));
        large.extend(&numbers([1, 1000, 2000]));
        assert!(large.iter().eq([0, 1, 63, 64, 1000, 2000]));
        assert!(large.contains(2000) && large.contains(1) && !large.contains(65));
    }

    #[test]
    fn a_large_set_says_when_it_has_no_room() {
        let full = 64..64 + u32::try_from(ROOM).expect("it is small");
        let mut set: LargeSet = numbers(full.clone());
        set.insert(full.start);
        assert!(!set.is_beyond());
        set.insert(full.end);
        assert!(set.is_beyond() && set.iter().eq(full));
        let mut other = LargeSet::of(1);
        other.extend(&set);
        assert!(other.is_beyond());
    }
}

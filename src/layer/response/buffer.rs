//! Memory for the texts of responses, so that a text needs no allocation of its own.

use std::fmt::{self, Write};
use std::mem;

use bytes::{Bytes, BytesMut};

/// The size of a block. A text that is in use keeps its whole block in memory. So blocks are small:
/// a program that stores responses, in a cache of responses for instance, stores at most one block
/// for each of them.
const BLOCK: usize = 8192;

/// The number of blocks. They have room for the header fields of 350 to 1,500 admitted requests, as
/// long as the names of the endpoints. If more responses of a thread are in use at one time, blocks
/// are replaced by new ones.
const BLOCKS: usize = 8;

/// Blocks of memory that texts are written to, one after the other. A block that is full is written
/// anew when all its texts have been dropped.
#[derive(Default)]
pub(super) struct Buffer {
    block: BytesMut,
    /// The other blocks, and the index of the one that has been full for the longest time.
    others: [BytesMut; BLOCKS - 1],
    oldest: usize,
}

impl Buffer {
    /// A buffer for a few texts that are used for long.
    pub(super) fn with_room(room: usize) -> Self {
        Self { block: BytesMut::with_capacity(room), ..Self::default() }
    }

    /// Makes room for all texts of a response. If there is none between two of them, the block
    /// could not be written anew, as the first of them is in use.
    #[inline]
    pub(super) fn make_room(&mut self, room: usize) {
        if self.block.capacity() < room {
            self.next_block();
        }
    }

    /// Goes on with a block whose texts have been dropped, or with a new one.
    #[cold]
    fn next_block(&mut self) {
        if self.block.try_reclaim(BLOCK) {
            return;
        }
        mem::swap(&mut self.block, &mut self.others[self.oldest]);
        self.oldest = (self.oldest + 1) % self.others.len();
        if !self.block.try_reclaim(BLOCK) {
            self.block = BytesMut::with_capacity(BLOCK);
        }
    }

    /// The text that consists of these parts.
    #[inline]
    pub(super) fn concat<const N: usize>(&mut self, parts: [&[u8]; N]) -> Bytes {
        for part in parts {
            self.block.extend_from_slice(part);
        }
        self.block.split().freeze()
    }

    /// The text, formatted by the standard library, which takes longer.
    pub(super) fn format(&mut self, text: fmt::Arguments<'_>) -> Bytes {
        self.block.write_fmt(text).expect("a buffer grows if it has to");
        self.block.split().freeze()
    }
}

/// A number in decimal digits. The standard library's formatting takes several times as long.
pub(super) struct Digits {
    bytes: [u8; Self::MAX],
    start: usize,
}

impl Digits {
    /// The digits of the largest number.
    const MAX: usize = 20;

    #[inline]
    pub(super) fn of(mut number: u64) -> Self {
        let mut digits = Self { bytes: [b'0'; Self::MAX], start: Self::MAX };
        loop {
            digits.start -= 1;
            digits.bytes[digits.start] += (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return digits;
            }
        }
    }
}

impl AsRef<[u8]> for Digits {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashSet, VecDeque};

    use super::{BLOCK, BLOCKS, Buffer, Bytes};

    /// Writes many texts of 64 bytes, of which so many are in use at one time. Returns the number
    /// of places where they were written.
    fn places(in_use: usize) -> usize {
        let mut buffer = Buffer::default();
        let mut places = HashSet::new();
        let mut texts = VecDeque::<(Bytes, u64)>::new();
        for number in 0..20_000_u64 {
            if texts.len() > in_use {
                let (text, number) = texts.pop_front().expect("there are several");
                assert_eq!(text, number.to_be_bytes().repeat(8));
            }
            buffer.make_room(64);
            let text = buffer.concat([&number.to_be_bytes().repeat(8)]);
            places.insert(text.as_ptr());
            texts.push_back((text, number));
        }
        places.len()
    }

    #[test]
    fn a_block_is_written_anew_when_its_texts_have_been_dropped() {
        assert_eq!(places(0), BLOCK / 64);
        assert_eq!(places(500), BLOCKS * BLOCK / 64);
    }

    #[test]
    fn no_text_is_changed_while_it_is_in_use() {
        assert!(places(5000) > BLOCKS * BLOCK / 64);
    }
}

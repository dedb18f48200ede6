//! Path templates as a tree of segments.
//!
//! Ours, since a path is looked up for every request: matchit, which axum uses, keeps the parameters' values and allocates
//! when it has to turn back from a literal to a parameter, as for every agent whose id begins like `all`.

use std::cmp::Ordering;

use super::Billing;

#[derive(Clone, Default)]
pub(super) struct Tree {
    root: Node,
}

#[derive(Clone, Default)]
struct Node {
    /// Sorted by the segment.
    literals: Vec<(Literal, Node)>,
    parameter: Option<Box<Node>>,
    /// A template that ends here with the rest of the path.
    rest: Option<Leaf>,
    /// A template that ends here.
    end: Option<Leaf>,
}

/// A segment: compared by its length and its first eight bytes, which nearly always settles it.
#[derive(Clone)]
struct Literal {
    length: usize,
    head: u64,
    text: Box<[u8]>,
}

#[derive(Clone)]
struct Leaf {
    template: Box<str>,
    billing: Billing,
}

impl Tree {
    /// The error is the template that matches the same paths.
    pub(super) fn insert(&mut self, template: &str, billing: Billing) -> Result<(), String> {
        let mut node = &mut self.root;
        let mut to_the_end = false;
        for segment in template.split('/').skip(1) {
            if segment.starts_with("{*") {
                to_the_end = true;
            } else if segment.starts_with('{') {
                node = node.parameter.get_or_insert_default();
            } else {
                node = node.literal(segment.as_bytes());
            }
        }
        let place = if to_the_end { &mut node.rest } else { &mut node.end };
        match place {
            Some(taken) => Err(taken.template.to_string()),
            None => {
                *place = Some(Leaf { template: template.into(), billing });
                Ok(())
            }
        }
    }

    /// What the path is billed to. At each segment a literal beats a parameter, which beats the rest of a path.
    pub(super) fn find(&self, path: &str) -> Option<Billing> {
        self.root.find(path.as_bytes().strip_prefix(b"/")?).map(|leaf| leaf.billing)
    }
}

impl Node {
    fn literal(&mut self, segment: &[u8]) -> &mut Self {
        let segment = Segment::of(segment);
        let index = self.literals.binary_search_by(|(literal, _)| literal.cmp(&segment)).unwrap_or_else(|index| {
            let literal = Literal { length: segment.length, head: segment.head, text: segment.text().into() };
            self.literals.insert(index, (literal, Self::default()));
            index
        });
        &mut self.literals[index].1
    }

    #[inline]
    fn under(&self, segment: &Segment<'_>) -> Option<&Self> {
        // A few are gone through in less time than a search takes to begin.
        let index = if self.literals.len() <= 8 {
            self.literals.iter().position(|(literal, _)| literal.is(segment))?
        } else {
            self.literals.binary_search_by(|(literal, _)| literal.cmp(segment)).ok()?
        };
        Some(&self.literals[index].1)
    }

    /// As deep as the longest template at most, however long the path.
    fn find(&self, mut path: &[u8]) -> Option<&Leaf> {
        let mut node = self;
        let mut rest = None;
        loop {
            let segment = Segment::of(path);
            if !path.is_empty() {
                rest = node.rest.as_ref().or(rest);
            }
            let literal = node.under(&segment);
            let parameter = node.parameter.as_deref().filter(|_| segment.length > 0);
            node = match (literal, parameter) {
                (Some(literal), Some(parameter)) => {
                    let found = match segment.left() {
                        Some(left) => literal.find(left),
                        None => literal.end.as_ref(),
                    };
                    if found.is_some() {
                        return found;
                    }
                    parameter
                }
                (Some(only), None) | (None, Some(only)) => only,
                (None, None) => return rest,
            };
            match segment.left() {
                Some(left) => path = left,
                None => return node.end.as_ref().or(rest),
            }
        }
    }
}

impl Literal {
    #[inline]
    fn is(&self, segment: &Segment<'_>) -> bool {
        self.length == segment.length
            && self.head == segment.head
            && (self.length <= 8 || self.text[8..] == segment.text()[8..])
    }

    fn cmp(&self, segment: &Segment<'_>) -> Ordering {
        let quick = (self.length, self.head).cmp(&(segment.length, segment.head));
        quick.then_with(|| (*self.text).cmp(segment.text()))
    }
}

/// The first segment of a path, and what follows it.
struct Segment<'a> {
    path: &'a [u8],
    length: usize,
    head: u64,
}

impl<'a> Segment<'a> {
    #[inline]
    fn of(path: &'a [u8]) -> Self {
        let length = slash(path).unwrap_or(path.len());
        Self { path, length, head: head(path, length) }
    }

    #[inline]
    fn text(&self) -> &'a [u8] {
        &self.path[..self.length]
    }

    /// What is behind the slash that ends it, if one does.
    #[inline]
    fn left(&self) -> Option<&'a [u8]> {
        self.path.get(self.length + 1..)
    }
}

/// The first eight of a segment's bytes, with zeros for those that it does not have.
#[inline]
fn head(path: &[u8], length: usize) -> u64 {
    let kept = if length < 8 { !(u64::MAX << (8 * length)) } else { u64::MAX };
    match path.first_chunk() {
        Some(word) => u64::from_le_bytes(*word) & kept,
        None => path.iter().take(length).rev().fold(0, |head, byte| head << 8 | u64::from(*byte)),
    }
}

/// Where the first slash is. Eight bytes at a time: ids are long.
#[inline]
fn slash(path: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    let mut from = 0;
    while let Some(word) = path[from..].first_chunk() {
        // A byte that was a slash is zero now, and borrows into its highest bit; nothing below the first one does.
        let word = u64::from_le_bytes(*word) ^ (ONES * u64::from(b'/'));
        let slashes = word.wrapping_sub(ONES) & !word & (ONES << 7);
        if slashes != 0 {
            return Some(from + slashes.trailing_zeros() as usize / 8);
        }
        from += 8;
    }
    path[from..].iter().position(|byte| *byte == b'/').map(|at| from + at)
}

#[cfg(test)]
mod tests {
    use super::slash;

    #[test]
    fn the_first_slash_is_found_wherever_it_is() {
        for length in 0..40 {
            // Neighbours of the slash's code, and bytes that are not ASCII.
            for filler in [b'.', b'0', 0x00, 0xaf, 0xff] {
                let path = vec![filler; length];
                assert_eq!(slash(&path), None);
                for at in 0..length {
                    let mut path = path.clone();
                    path[at..].fill(b'/');
                    assert_eq!(slash(&path), Some(at));
                    path[at + 1..].fill(filler);
                    assert_eq!(slash(&path), Some(at));
                }
            }
        }
    }
}

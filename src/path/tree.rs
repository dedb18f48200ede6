//! Path templates as a tree of segments.
//!
//! Ours, since a path is looked up for every request: matchit, which axum uses, keeps the parameters' values and allocates
//! when it has to turn back from a literal to a parameter, as for every agent whose id begins like `all`.

use super::Billing;

#[derive(Clone, Default)]
pub(super) struct Tree {
    root: Node,
}

#[derive(Clone, Default)]
struct Node {
    /// Sorted by the segment, shorter ones first.
    literals: Vec<(Box<[u8]>, Node)>,
    parameter: Option<Box<Node>>,
    /// A template that ends here with the rest of the path.
    rest: Option<Leaf>,
    /// A template that ends here.
    end: Option<Leaf>,
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
        let index = self.index_of(segment).unwrap_or_else(|index| {
            self.literals.insert(index, (segment.into(), Self::default()));
            index
        });
        &mut self.literals[index].1
    }

    #[inline]
    fn index_of(&self, segment: &[u8]) -> Result<usize, usize> {
        // By length first, which nearly always settles it without a look at the text.
        let by_length = |literal: &[u8]| literal.len().cmp(&segment.len());
        self.literals.binary_search_by(|(literal, _)| by_length(literal).then_with(|| (**literal).cmp(segment)))
    }

    /// As deep as the longest template at most, however long the path.
    fn find(&self, path: &[u8]) -> Option<&Leaf> {
        let (segment, left) = match slash(path) {
            Some(slash) => (&path[..slash], Some(&path[slash + 1..])),
            None => (path, None),
        };
        let literal = self.index_of(segment).ok().map(|index| &self.literals[index].1);
        let parameter = self.parameter.as_deref().filter(|_| !segment.is_empty());
        literal
            .and_then(|node| node.below(left))
            .or_else(|| parameter.and_then(|node| node.below(left)))
            .or(self.rest.as_ref().filter(|_| !path.is_empty()))
    }

    #[inline]
    fn below(&self, left: Option<&[u8]>) -> Option<&Leaf> {
        match left {
            Some(left) => self.find(left),
            None => self.end.as_ref(),
        }
    }
}

/// Where the first slash is. Eight bytes at a time: ids are long.
#[inline]
fn slash(path: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    let mut from = 0;
    while let Some(word) = path[from..].first_chunk() {
        // A byte that was a slash is zero now, and borrows into its highest bit; nothing below the first one does.
        let word = u64::from_le_bytes(*word) ^ (ONES * b'/' as u64);
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

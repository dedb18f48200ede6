//! Path templates as a tree of segments.
//!
//! A tree of our own, because a path is looked up for every request. matchit, which axum uses,
//! stores the values of parameters, and allocates when it has to go back from a literal to a
//! parameter, as for every agent whose id begins like `all`.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::Billing;

#[derive(Clone, Default)]
pub(super) struct Tree {
    root: TreeNode,
}

#[derive(Clone, Default)]
struct TreeNode {
    /// The children for literal segments, sorted by the segment.
    literals: Vec<(Literal, TreeNode)>,
    /// The child for `{name}`.
    parameter: Option<Box<TreeNode>>,
    /// A template that ends here with `{*name}`.
    rest: Option<Leaf>,
    /// A template that ends here.
    end: Option<Leaf>,
}

/// A literal segment. It is compared by its length and its first eight bytes first, which is nearly
/// always enough. The literals of a node are sorted in that order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Literal {
    length: usize,
    /// The first eight bytes, little-endian and padded with zeros.
    head: u64,
    text: Box<[u8]>,
}

#[derive(Clone)]
struct Leaf {
    template: Box<str>,
    billing: Billing,
}

/// A tree that is being built. Each of its nodes, however deep it is, is found by one look-up, so
/// that it takes no longer to add a template to many than to a few.
pub(super) struct TreeBuilder<'a> {
    /// The root first, and each node after its parent.
    nodes: Vec<NodeDraft<'a>>,
    /// The index of the child of a node for a segment. For all parameters that is [`PARAMETER`].
    children: HashMap<(usize, &'a str), usize>,
}

/// A node whose children are not attached to it yet.
struct NodeDraft<'a> {
    parent: usize,
    segment: &'a str,
    rest: Option<Leaf>,
    end: Option<Leaf>,
}

/// The segment of a parameter, whatever its name. No literal is so spelled.
const PARAMETER: &str = "{}";

impl<'a> TreeBuilder<'a> {
    pub(super) fn new() -> Self {
        let root = NodeDraft { parent: 0, segment: "", rest: None, end: None };
        Self { nodes: vec![root], children: HashMap::new() }
    }

    /// Adds a template.
    ///
    /// # Errors
    /// If the tree has a template that matches the same paths. The error is that template.
    pub(super) fn insert(&mut self, template: &'a str, billing: Billing) -> Result<(), String> {
        let mut node = 0;
        let mut to_the_end = false;
        for segment in template.split('/').skip(1) {
            if segment.starts_with("{*") {
                to_the_end = true;
            } else if segment.starts_with('{') {
                node = self.child(node, PARAMETER);
            } else {
                node = self.child(node, segment);
            }
        }
        let NodeDraft { rest, end, .. } = &mut self.nodes[node];
        let place = if to_the_end { rest } else { end };
        match place {
            Some(taken) => Err(taken.template.to_string()),
            None => {
                *place = Some(Leaf { template: template.into(), billing });
                Ok(())
            }
        }
    }

    /// The child of a node for a segment, which is added if it does not exist.
    fn child(&mut self, parent: usize, segment: &'a str) -> usize {
        *self.children.entry((parent, segment)).or_insert_with(|| {
            self.nodes.push(NodeDraft { parent, segment, rest: None, end: None });
            self.nodes.len() - 1
        })
    }

    pub(super) fn build(self) -> Tree {
        let mut nodes = Vec::with_capacity(self.nodes.len());
        let mut places = Vec::with_capacity(self.nodes.len());
        for NodeDraft { parent, segment, rest, end } in self.nodes {
            nodes.push(TreeNode { rest, end, ..TreeNode::default() });
            places.push((parent, segment));
        }
        // From the last node to the first, so that each has its children when its parent gets it.
        while let (Some(mut node), Some((parent, segment))) = (nodes.pop(), places.pop()) {
            node.literals.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
            match nodes.get_mut(parent) {
                None => return Tree { root: node },
                Some(parent) if segment == PARAMETER => parent.parameter = Some(Box::new(node)),
                Some(parent) => parent.literals.push((Literal::of(segment), node)),
            }
        }
        Tree::default()
    }
}

impl Tree {
    /// What the path is charged to. `None` if no template matches it. At each segment a literal
    /// beats a parameter, which beats the rest of a path.
    #[inline]
    pub(super) fn find(&self, path: &[u8]) -> Option<Billing> {
        self.root.find(path.strip_prefix(b"/")?).map(|leaf| leaf.billing)
    }

    /// All templates, and what each of them is charged to.
    pub(super) fn templates(&self) -> Vec<(&str, Billing)> {
        let (mut leaves, mut nodes) = (Vec::new(), vec![&self.root]);
        while let Some(node) = nodes.pop() {
            leaves.extend(
                node.end.iter().chain(&node.rest).map(|leaf| (&*leaf.template, leaf.billing)),
            );
            nodes.extend(
                node.literals.iter().map(|(_, node)| node).chain(node.parameter.as_deref()),
            );
        }
        leaves
    }
}

impl TreeNode {
    /// The child for a literal segment, if it exists.
    #[inline]
    fn under(&self, segment: &Segment<'_>) -> Option<&Self> {
        // A few children are compared one by one in less time than a binary search takes.
        let index = if self.literals.len() <= 8 {
            self.literals.iter().position(|(literal, _)| literal.is(segment))?
        } else {
            self.literals.binary_search_by(|(literal, _)| literal.cmp_segment(segment)).ok()?
        };
        Some(&self.literals[index].1)
    }

    /// Finds the template for the rest of a path, which begins after a slash. This goes at most as
    /// deep as the deepest template, however long the path is.
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
    fn of(segment: &str) -> Self {
        let Segment { length, head, .. } = Segment::of(segment.as_bytes());
        Self { length, head, text: segment.as_bytes().into() }
    }

    #[inline]
    fn is(&self, segment: &Segment<'_>) -> bool {
        self.length == segment.length
            && self.head == segment.head
            && (self.length <= 8 || self.text[8..] == segment.text()[8..])
    }

    /// How it compares to a segment in the order of literals.
    fn cmp_segment(&self, segment: &Segment<'_>) -> Ordering {
        let quick = (self.length, self.head).cmp(&(segment.length, segment.head));
        quick.then_with(|| (*self.text).cmp(segment.text()))
    }
}

/// The first segment of a path, and what follows it.
struct Segment<'a> {
    path: &'a [u8],
    length: usize,
    /// The first eight bytes of the segment, little-endian and padded with zeros.
    head: u64,
}

impl<'a> Segment<'a> {
    /// Finds the first segment of a path. It looks at eight bytes at a time, since ids are long.
    #[inline]
    fn of(path: &'a [u8]) -> Self {
        const ONES: u64 = u64::from_le_bytes([1; 8]);
        let Some(first) = path.first_chunk() else {
            return Self::of_few(path, 0, 0);
        };
        let first = u64::from_le_bytes(*first);
        let (mut word, mut from) = (first, 0);
        loop {
            // Bytes that were slashes are zero now. In the subtraction each of them borrows, which
            // sets its highest bit. No byte below the first of them does.
            word ^= ONES * u64::from(b'/');
            let slashes = word.wrapping_sub(ONES) & !word & (ONES << 7);
            if slashes != 0 {
                let bits = slashes.trailing_zeros();
                // The bytes of the head that are below the slash, if the slash is among the first
                // eight bytes.
                let kept = if from == 0 { (1_u64 << (bits - 7)) - 1 } else { u64::MAX };
                return Self { path, length: from + bits as usize / 8, head: first & kept };
            }
            from += 8;
            match path[from..].first_chunk() {
                Some(next) => word = u64::from_le_bytes(*next),
                None => return Self::of_few(path, from, first),
            }
        }
    }

    /// Finds the end of the segment if fewer than eight bytes are left to look at. The bytes before
    /// `from` contain no slash.
    #[inline]
    fn of_few(path: &'a [u8], from: usize, mut head: u64) -> Self {
        let mut length = from;
        while let Some(byte) = path.get(length).filter(|byte| **byte != b'/') {
            if from == 0 {
                head |= u64::from(*byte) << (8 * length);
            }
            length += 1;
        }
        Self { path, length, head }
    }

    #[inline]
    fn text(&self) -> &'a [u8] {
        &self.path[..self.length]
    }

    /// What follows the slash that ends the segment. `None` if no slash does.
    #[inline]
    fn left(&self) -> Option<&'a [u8]> {
        self.path.get(self.length + 1..)
    }
}

#[cfg(test)]
mod tests {
    use super::Segment;

    #[test]
    fn a_segment_ends_at_the_first_slash_wherever_it_is() {
        for length in 0..40 {
            // Neighbours of the slash's code, and bytes that are not ASCII.
            for filler in [b'.', b'0', 0x00, 0xaf, 0xff] {
                let path = vec![filler; length];
                let whole = Segment::of(&path);
                assert_eq!((whole.text(), whole.left()), (&path[..], None));
                let mut head = [0; 8];
                head[..length.min(8)].fill(filler);
                assert_eq!(whole.head, u64::from_le_bytes(head));
                for at in 0..length {
                    for next in [b'/', filler] {
                        let mut path = path.clone();
                        path[at] = b'/';
                        path[at + 1..].fill(next);
                        let segment = Segment::of(&path);
                        assert_eq!(
                            (segment.text(), segment.left()),
                            (&path[..at], Some(&path[at + 1..]))
                        );
                        let mut head = [0; 8];
                        head[..at.min(8)].fill(filler);
                        assert_eq!(segment.head, u64::from_le_bytes(head));
                    }
                }
            }
        }
    }
}

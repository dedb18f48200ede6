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
    literals: Vec<(Box<str>, Node)>,
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
                node = node.literal(segment);
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
        self.root.find(path.strip_prefix('/')?).map(|leaf| leaf.billing)
    }
}

impl Node {
    fn literal(&mut self, segment: &str) -> &mut Self {
        let index = self.index_of(segment).unwrap_or_else(|index| {
            self.literals.insert(index, (segment.into(), Self::default()));
            index
        });
        &mut self.literals[index].1
    }

    fn index_of(&self, segment: &str) -> Result<usize, usize> {
        // By length first, which nearly always settles it without a look at the text.
        let by_length = |literal: &str| literal.len().cmp(&segment.len());
        self.literals.binary_search_by(|(literal, _)| by_length(literal).then_with(|| (**literal).cmp(segment)))
    }

    /// As deep as the longest template at most, however long the path.
    fn find(&self, path: &str) -> Option<&Leaf> {
        let (segment, left) = match path.bytes().position(|byte| byte == b'/') {
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

    fn below(&self, left: Option<&str>) -> Option<&Leaf> {
        match left {
            Some(left) => self.find(left),
            None => self.end.as_ref(),
        }
    }
}

//! Path templates as a graph of segments.
//!
//! A graph of our own, because a path is looked up for every request, and because an odd path is at
//! several nodes of it at once. matchit, which axum uses, stores the values of parameters, and
//! allocates when it has to go back from a literal to a parameter, as for every agent whose id
//! begins like `all`.
//!
//! Here nothing goes back: a node stands for all templates that the segments so far match, the best
//! first. So after `/v2/agent/all` a path is at one node, which knows the children of
//! `/v2/agent/all` and of `/v2/agent/{id}`.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use smallvec::SmallVec;

use super::Billing;

/// The index of a node in the graph.
pub(super) type NodeId = u32;

/// Where every path begins.
pub(super) const ROOT: NodeId = 0;

/// The most nodes and edges of a graph, besides sixteen for each segment of a template. Templates
/// in which parameters and literals alternate in many ways can need as many as there are
/// combinations.
const MOST: usize = 1 << 16;

/// The most nodes that [`Tree::inner`] has. In nearly all policies there are a few.
const MOST_INNER: usize = 64;

#[derive(Clone)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    leaves: Vec<Leaf>,
    /// Whether all numbers of nodes and endpoints are below 64.
    is_small: bool,
    /// Whether a literal is the name of a script.
    has_script: bool,
    /// Where a path is after the name of a script that is not its first segment: at the root, but
    /// charged to nothing that no template matches. So an id such as `ana@firma.pl` is not charged
    /// to `default` besides its own endpoint.
    script: NodeId,
    /// Whether a literal has one of the characters of [`folded`].
    has_folded: bool,
    /// Nodes other than the root that only literals lead to, and from which further literals lead
    /// on: those nearest to the root, [`MOST_INNER`] at most.
    inner: Vec<NodeId>,
}

/// What the segments of a path so far match.
#[derive(Clone)]
pub(super) struct Node {
    table: Arc<Table>,
    /// What a path that ends here is charged to.
    pub(super) end: Billing,
    /// Whether a template ends here.
    pub(super) is_end: bool,
    /// What a path is charged to whose next segment no child matches.
    pub(super) off: Billing,
    /// What a path that ends with a slash here is charged to, if that is not ignored.
    slash: Billing,
    /// What a path is charged to that ends here with an empty rest, if a template has `{*name}`
    /// here.
    pub(super) rest: Option<Billing>,
    /// What a path is charged to that ends with a slash here, if a template has `{*name}` before.
    pub(super) wider: Option<Billing>,
    /// Whether a path begins here, or what is left of it without a prefix.
    pub(super) is_root: bool,
}

/// The children of a node. Nodes with the same children share a table.
struct Table {
    /// Sorted by the literal.
    literals: Vec<(Literal, NodeId)>,
    /// The child for any other segment that is not empty.
    parameter: Option<NodeId>,
    /// The literals once more, in the order of their text in lower case. Empty for a few literals
    /// that are clearly different, of which a segment can resemble one at most.
    by_text: Vec<ByText>,
}

/// As many literals are compared one by one in less time than a binary search takes.
const FEW: usize = 8;

/// A literal in the order of its text in lower case.
struct ByText {
    folded: Box<[u8]>,
    index: u32,
    /// The index of the last literal before it in this order that is a beginning of it.
    beginning: Option<u32>,
}

/// A literal segment. It is compared by its length and its first eight bytes first, which is nearly
/// always enough. The literals of a table are sorted in that order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Literal {
    length: usize,
    head: u64,
    text: Box<[u8]>,
    /// The head in lower case.
    folded: u64,
    /// The bits of a head that are the literal's.
    mask: u64,
}

#[derive(Clone)]
struct Leaf {
    template: Box<str>,
    billing: Billing,
}

/// How a segment that is read leniently begins like a literal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Match {
    /// Whether the capitals are the same.
    pub(super) is_same: bool,
    /// Whether the segment is no longer than the literal.
    pub(super) is_whole: bool,
    /// Whether a dot follows the literal.
    pub(super) has_suffix: bool,
    /// Whether only bytes that servers trim follow the literal.
    pub(super) is_trimmed: bool,
}

impl Match {
    pub(super) const EXACT: Self =
        Self { is_same: true, is_whole: true, has_suffix: false, is_trimmed: false };
}

/// Templates that are being put together. Each node, however deep it is, is found by one look-up,
/// so that it takes no longer to add a template to many than to a few.
pub(super) struct TreeBuilder<'a> {
    /// The root first, and each node after its parent.
    drafts: Vec<Draft<'a>>,
    /// The index of the child of a node for a segment. For all parameters that is [`PARAMETER`].
    children: HashMap<(usize, &'a str), usize>,
    leaves: Vec<Leaf>,
}

/// A node for one sequence of segments of templates.
#[derive(Default)]
struct Draft<'a> {
    literals: Vec<(&'a str, usize)>,
    parameter: Option<usize>,
    /// The leaf of a template that ends here with `{*name}`.
    rest: Option<usize>,
    /// The leaf of a template that ends here.
    end: Option<usize>,
    /// Whether the application strips what leads here.
    is_prefix: bool,
}

/// The segment of a parameter, whatever its name. No literal is so spelled.
const PARAMETER: &str = "{}";

/// The templates need a graph of too many nodes, since literals and parameters alternate in them in
/// too many ways.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Overlaps;

/// What a node of the graph stands for.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    /// The drafts that the segments so far match, the best first.
    drafts: SmallVec<[usize; 4]>,
    /// The leaf that applies if none of them does.
    inherited: Option<usize>,
    /// Whether a prefix has been stripped. No other one is.
    is_stripped: bool,
}

impl<'a> TreeBuilder<'a> {
    pub(super) fn new() -> Self {
        Self { drafts: vec![Draft::default()], children: HashMap::new(), leaves: Vec::new() }
    }

    /// Adds a template.
    ///
    /// # Errors
    /// If there is a template that matches the same paths. The error is that template.
    pub(super) fn insert(&mut self, template: &'a str, billing: Billing) -> Result<(), String> {
        let (draft, to_the_end) = self.walk(template);
        let leaf = self.leaves.len();
        let Draft { rest, end, .. } = &mut self.drafts[draft];
        let place = if to_the_end { rest } else { end };
        if let Some(taken) = *place {
            return Err(self.leaves[taken].template.to_string());
        }
        *place = Some(leaf);
        self.leaves.push(Leaf { template: template.into(), billing });
        Ok(())
    }

    /// Adds a prefix that the application strips.
    pub(super) fn insert_prefix(&mut self, template: &'a str) {
        let (draft, _) = self.walk(template);
        self.drafts[draft].is_prefix = true;
    }

    /// The draft to which a template leads, and whether it matches the rest of a path from there.
    fn walk(&mut self, template: &'a str) -> (usize, bool) {
        let mut draft = 0;
        for segment in template.split('/').filter(|segment| !segment.is_empty()) {
            if segment.starts_with("{*") {
                return (draft, true);
            }
            draft = self.child(draft, if segment.starts_with('{') { PARAMETER } else { segment });
        }
        (draft, false)
    }

    /// The child of a draft for a segment, which is added if it does not exist.
    fn child(&mut self, parent: usize, segment: &'a str) -> usize {
        let drafts = &mut self.drafts;
        *self.children.entry((parent, segment)).or_insert_with(|| {
            let child = drafts.len();
            drafts.push(Draft::default());
            match segment {
                PARAMETER => drafts[parent].parameter = Some(child),
                literal => drafts[parent].literals.push((literal, child)),
            }
            child
        })
    }

    /// The graph. Paths that no template matches are charged to `default`.
    ///
    /// # Errors
    /// If the templates overlap in too many ways.
    pub(super) fn build(self, default: Billing) -> Result<Tree, Overlaps> {
        Graph::of(&self, default).build()
    }

    /// The key of these drafts. After a prefix that the application strips, the rest of the path is
    /// matched as what follows the prefix in the templates, or else as a path of its own, but by no
    /// wider template.
    fn key_of(
        &self,
        drafts: impl IntoIterator<Item = usize>,
        inherited: Option<usize>,
        is_stripped: bool,
    ) -> Key {
        let mut key = Key { drafts: SmallVec::new(), inherited, is_stripped };
        for draft in drafts {
            key.drafts.push(draft);
            if self.drafts[draft].is_prefix && !is_stripped {
                key.drafts.push(0);
                (key.inherited, key.is_stripped) = (None, true);
                break;
            }
        }
        key
    }
}

/// The graph while it is being built.
struct Graph<'a> {
    builder: &'a TreeBuilder<'a>,
    default: Billing,
    keys: Vec<Key>,
    ids: HashMap<Key, NodeId>,
    tables: HashMap<Key, Arc<Table>>,
    nodes: Vec<Node>,
    edges: usize,
}

impl<'a> Graph<'a> {
    fn of(builder: &'a TreeBuilder<'a>, default: Billing) -> Self {
        let (keys, ids, tables, nodes) = (Vec::new(), HashMap::new(), HashMap::new(), Vec::new());
        Self { builder, default, keys, ids, tables, nodes, edges: 0 }
    }

    fn build(mut self) -> Result<Tree, Overlaps> {
        let most = MOST + 16 * self.builder.drafts.len();
        let root = self.builder.key_of([0], None, false);
        self.id(root);
        // Breadth first: the nodes that most paths pass get the smallest numbers.
        while let Some(key) = self.keys.get(self.nodes.len()).cloned() {
            let node = self.node(&key);
            self.nodes.push(node);
            if self.keys.len() + self.edges > most {
                return Err(Overlaps);
            }
        }
        // The root is the only place where a slash is all that there is.
        self.nodes[0].slash = self.nodes[0].end;
        let script = NodeId::try_from(self.nodes.len()).unwrap_or(NodeId::MAX);
        let root = &self.nodes[0];
        self.nodes.push(Node {
            end: Billing::Exempt,
            is_end: false,
            off: root.rest.unwrap_or(Billing::Exempt),
            slash: Billing::Exempt,
            wider: None,
            is_root: false,
            ..root.clone()
        });
        let leaves = self.builder.leaves.clone();
        let mut literals = self.builder.drafts.iter().flat_map(|draft| &draft.literals);
        let has_script = literals.clone().any(|it| is_script(it.0.as_bytes()));
        let has_folded = literals.any(|it| it.0.chars().any(|it| folded(it).is_some()));
        let is_small_billing = |billing: Billing| match billing {
            Billing::Endpoint(index) => index < 64,
            Billing::Exempt => true,
        };
        let is_small = self.nodes.len() <= 64
            && leaves.iter().all(|leaf| is_small_billing(leaf.billing))
            && is_small_billing(self.default);
        let inner = self.inner();
        Ok(Tree { nodes: self.nodes, leaves, is_small, has_script, script, has_folded, inner })
    }

    fn inner(&self) -> Vec<NodeId> {
        let literals = |node: NodeId| self.nodes[node as usize].table.literals.iter();
        let (mut found, mut at) = (vec![ROOT], 0);
        while found.len() <= MOST_INNER && at < found.len() {
            let children = literals(found[at]).map(|(_, child)| *child);
            found.extend(children.filter(|child| literals(*child).len() > 0));
            at += 1;
        }
        found.truncate(MOST_INNER + 1);
        found.split_off(1)
    }

    fn id(&mut self, key: Key) -> NodeId {
        let next = u32::try_from(self.keys.len()).unwrap_or(NodeId::MAX);
        *self.ids.entry(key).or_insert_with_key(|key| {
            self.keys.push(key.clone());
            next
        })
    }

    fn billing(&self, leaf: Option<usize>) -> Billing {
        leaf.map_or(self.default, |leaf| self.builder.leaves[leaf].billing)
    }

    fn node(&mut self, key: &Key) -> Node {
        let drafts = &self.builder.drafts;
        let Key { drafts: list, inherited, .. } = key;
        let end = list.iter().find_map(|draft| drafts[*draft].end);
        let rest = list.iter().find_map(|draft| drafts[*draft].rest);
        Node {
            end: self.billing(end.or(*inherited)),
            is_end: end.is_some(),
            off: self.billing(rest.or(*inherited)),
            slash: self.billing(*inherited),
            rest: rest.map(|rest| self.billing(Some(rest))),
            wider: inherited.map(|wider| self.billing(Some(wider))),
            is_root: list.contains(&0),
            table: self.table(key),
        }
    }

    fn table(&mut self, key: &Key) -> Arc<Table> {
        let Key { drafts: list, inherited, is_stripped } = key;
        let drafts = &self.builder.drafts;
        // Templates that only end here have no part in it. Nothing comes after the first `{*name}`.
        let mut part = SmallVec::new();
        for draft in list {
            let Draft { literals, parameter, rest, .. } = &drafts[*draft];
            if !literals.is_empty() || parameter.is_some() || rest.is_some() {
                part.push(*draft);
            }
            if rest.is_some() {
                break;
            }
        }
        let key = Key { drafts: part, ..*key };
        if let Some(known) = self.tables.get(&key) {
            return Arc::clone(known);
        }
        let part = &key.drafts;
        let mut names: Vec<&'a str> = Vec::new();
        for draft in part {
            names.extend(drafts[*draft].literals.iter().map(|(name, _)| *name));
        }
        names.sort_unstable();
        names.dedup();
        self.edges += names.len();
        let rest = part.iter().find_map(|draft| drafts[*draft].rest).or(*inherited);
        let mut literals: Vec<_> = Vec::with_capacity(names.len());
        for name in names {
            let children = part.iter().flat_map(|draft| {
                let literal = self.builder.children.get(&(*draft, name)).copied();
                literal.into_iter().chain(drafts[*draft].parameter)
            });
            let child = self.builder.key_of(children, rest, *is_stripped);
            literals.push((Literal::of(name), self.id(child)));
        }
        literals.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let mut parameters = part.iter().filter_map(|draft| drafts[*draft].parameter).peekable();
        let parameter = parameters.peek().is_some();
        let parameter = parameter.then(|| self.builder.key_of(parameters, rest, *is_stripped));
        let parameter = parameter.map(|key| self.id(key));
        let mut by_text = ByText::all(&literals);
        if literals.len() <= FEW && !by_text.windows(2).any(|pair| pair[0].begins(&pair[1])) {
            by_text.clear();
        }
        let table = Arc::new(Table { literals, parameter, by_text });
        self.tables.insert(key, Arc::clone(&table));
        table
    }
}

impl ByText {
    /// Whether the next literal may be taken for this one.
    fn begins(&self, next: &Self) -> bool {
        next.folded.starts_with(&self.folded)
    }

    fn all(literals: &[(Literal, NodeId)]) -> Vec<Self> {
        let mut all: Vec<_> = (0..)
            .zip(literals)
            .map(|(index, (literal, _))| {
                let folded = literal.text.to_ascii_lowercase().into_boxed_slice();
                Self { folded, index, beginning: None }
            })
            .collect();
        all.sort_unstable_by(|one, other| one.folded.cmp(&other.folded));
        // The literals that are beginnings of the one at hand, the longest last.
        let mut open: Vec<usize> = Vec::new();
        for at in 0..all.len() {
            while open.last().is_some_and(|last| !all[at].folded.starts_with(&all[*last].folded)) {
                open.pop();
            }
            all[at].beginning = open.last().and_then(|last| u32::try_from(*last).ok());
            open.push(at);
        }
        all
    }
}

impl Tree {
    /// What a path without odd bytes is charged to. It begins with a slash. At each segment a
    /// literal beats a parameter, which beats the rest of a path. `None` if servers differ about
    /// the path, because a segment resembles a literal or names a script.
    #[inline]
    pub(super) fn find(&self, path: &[u8]) -> Option<Billing> {
        let mut path = path.get(1..).unwrap_or_default();
        let mut node = &self.nodes[0];
        loop {
            let segment = Segment::of(path);
            let table = &*node.table;
            let (child, may_be_script) = match table.under(&segment) {
                Under::Literal(child) => (child, self.has_script),
                Under::Unclear => return None,
                Under::Nothing => match table.parameter {
                    Some(child) if segment.length > 0 => (child, true),
                    // For some servers the id, or the rest, is empty.
                    Some(_) if path.is_empty() => return None,
                    _ if path.is_empty() && node.rest.is_some() => return None,
                    _ if path.is_empty() => return Some(node.slash),
                    _ => return if names_script(path) { None } else { Some(node.off) },
                },
            };
            node = &self.nodes[child as usize];
            match segment.left() {
                Some(_) if may_be_script && is_script(segment.text()) => return None,
                Some(left) => path = left,
                None => return Some(node.end),
            }
        }
    }

    /// Where a path is after the name of a script that is not its first segment.
    pub(super) const fn script(&self) -> NodeId {
        self.script
    }

    /// Nodes other than the root that only literals lead to, and from which further literals lead
    /// on. If there are many, only those nearest to the root.
    pub(super) fn inner(&self) -> &[NodeId] {
        &self.inner
    }

    /// Whether a literal has one of the characters of [`folded`].
    pub(super) const fn has_folded(&self) -> bool {
        self.has_folded
    }

    /// What a path is charged to if it is taken as it is written. It begins with a slash.
    pub(super) fn written(&self, path: &[u8]) -> Billing {
        self.written_from(ROOT, path)
    }

    /// The same for a path that begins at that node, if its first segment is a literal there.
    pub(super) fn written_at(&self, node: NodeId, path: &[u8]) -> Option<Billing> {
        let first = Segment::of(path.get(1..).unwrap_or_default());
        self.nodes[node as usize].table.literal(&first)?;
        Some(self.written_from(node, path))
    }

    #[inline]
    fn written_from(&self, node: NodeId, path: &[u8]) -> Billing {
        let mut path = path.get(1..).unwrap_or_default();
        let mut node = &self.nodes[node as usize];
        loop {
            let segment = Segment::of(path);
            let table = &*node.table;
            let parameter = || table.parameter.filter(|_| segment.length > 0);
            let Some(child) = table.literal(&segment).or_else(parameter) else {
                return if path.is_empty() { node.slash } else { node.off };
            };
            node = &self.nodes[child as usize];
            match segment.left() {
                Some(left) => path = left,
                None => return node.end,
            }
        }
    }

    #[inline]
    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id as usize]
    }

    /// The child of a node for a segment that is none of its literals.
    #[inline]
    pub(super) fn parameter(&self, node: &Node) -> Option<NodeId> {
        node.table.parameter
    }

    pub(super) const fn is_small(&self) -> bool {
        self.is_small
    }

    /// Calls `found` with each literal child that a segment may stand for, and how.
    #[inline]
    pub(super) fn matching(
        &self,
        node: &Node,
        text: Text<'_>,
        mut found: impl FnMut(NodeId, Match),
    ) {
        let table = &*node.table;
        if table.by_text.is_empty() {
            for (literal, child) in &table.literals {
                if text.resembles(literal) {
                    if let Some(how) = literal.matches(text) {
                        found(*child, how);
                    }
                }
            }
        } else {
            table.search(text, found);
        }
    }

    /// How often it counts as a look at the node to compare a text with its literals.
    #[inline]
    pub(super) fn looks(&self, node: &Node, text: Text<'_>) -> usize {
        if node.table.by_text.is_empty() { 1 } else { 8 + text.bytes.len() / 8 }
    }

    /// The templates that are charged so, among the first `most` of all.
    pub(super) fn templates_of(&self, billing: Billing, most: usize) -> impl Iterator<Item = &str> {
        let leaves = self.leaves.iter().take(most);
        leaves.filter(move |leaf| leaf.billing == billing).map(|leaf| &*leaf.template)
    }

    /// All templates, and what each of them is charged to.
    pub(super) fn templates(&self) -> Vec<(&str, Billing)> {
        self.leaves.iter().map(|leaf| (&*leaf.template, leaf.billing)).collect()
    }
}

/// Whether a segment looks like the name of a front controller, the script to which servers give
/// what follows it as the path.
#[inline]
pub(super) fn is_script(segment: &[u8]) -> bool {
    matches!(segment, [.., b'.', _, _] | [.., b'.', _, _, _] | [.., b'.', _, _, _, _])
        && has_script_ending(segment)
}

/// Whether a segment of a path, but for the last one, is the name of a script.
#[inline]
fn names_script(path: &[u8]) -> bool {
    path.contains(&b'.') && has_script_segment(path)
}

#[cold]
fn has_script_segment(path: &[u8]) -> bool {
    let mut segments = path.split(|byte| *byte == b'/').rev();
    segments.next();
    segments.any(is_script)
}

/// The ASCII letter that a character stands for where capitals do not matter, for one server or
/// another, as a capital.
pub(super) const fn folded(character: char) -> Option<u8> {
    match character {
        // i with a dot above, and without one.
        '\u{130}' | '\u{131}' => Some(b'I'),
        // The long s.
        '\u{17f}' => Some(b'S'),
        // The sign for kelvin.
        '\u{212a}' => Some(b'K'),
        _ => None,
    }
}

#[inline(never)]
fn has_script_ending(segment: &[u8]) -> bool {
    const ENDINGS: [&[u8]; 7] = [b".php", b".cgi", b".fcgi", b".pl", b".py", b".rb", b".wsgi"];
    let ends_with = |ending: &&[u8]| {
        let start = segment.len().checked_sub(ending.len());
        start.is_some_and(|start| segment[start..].eq_ignore_ascii_case(ending))
    };
    ENDINGS.iter().any(ends_with)
}

impl Table {
    /// The child for a literal segment, if it is clear.
    #[inline]
    fn under(&self, segment: &Segment<'_>) -> Under {
        if !self.by_text.is_empty() {
            return self.under_many(segment);
        }
        let folded = segment.head | SMALL_LETTERS;
        for (literal, child) in &self.literals {
            if folded & literal.mask == literal.folded {
                if literal.is(segment) {
                    return Under::Literal(*child);
                }
                if literal.matches(Text::of(segment.text())).is_some() {
                    return Under::Unclear;
                }
            }
        }
        Under::Nothing
    }

    #[inline(never)]
    fn under_many(&self, segment: &Segment<'_>) -> Under {
        let text = segment.text();
        let mut is_clear = true;
        self.search(Text::of(text), |_, how| is_clear &= how == Match::EXACT);
        if !is_clear {
            return Under::Unclear;
        }
        self.literal(segment).map_or(Under::Nothing, Under::Literal)
    }

    /// The child for a literal segment, if it exists.
    #[inline]
    fn literal(&self, segment: &Segment<'_>) -> Option<NodeId> {
        let index = if self.by_text.is_empty() {
            self.literals.iter().position(|(literal, _)| literal.is(segment))?
        } else {
            self.literals.binary_search_by(|(literal, _)| literal.cmp_segment(segment)).ok()?
        };
        Some(self.literals[index].1)
    }

    /// The same as [`Tree::matching`], for many literals.
    fn search(&self, text: Text<'_>, mut found: impl FnMut(NodeId, Match)) {
        let beginning = text.bytes.iter().map(u8::to_ascii_lowercase);
        let after =
            self.by_text.partition_point(|it| it.folded.iter().copied().le(beginning.clone()));
        // Each beginning of the text is the literal before that place, or a beginning of it.
        let mut at = after.checked_sub(1);
        while let Some(it) = at.map(|at| &self.by_text[at]) {
            let (literal, child) = &self.literals[it.index as usize];
            if let Some(how) = literal.matches(text) {
                found(*child, how);
            }
            at = it.beginning.map(|at| at as usize);
        }
    }
}

/// What is known of the child for a segment.
enum Under {
    Literal(NodeId),
    Nothing,
    /// Servers differ about it.
    Unclear,
}

/// The text of a segment, as servers may read it.
#[derive(Clone, Copy)]
pub(super) struct Text<'a> {
    /// Its beginning: all of it, or more than any literal has.
    pub(super) bytes: &'a [u8],
    pub(super) length: usize,
    /// Its length without what is trimmed at the end.
    pub(super) kept: usize,
    /// Its head in lower case.
    folded: u64,
}

/// The bit that tells small letters from capitals, in each byte of a head.
const SMALL_LETTERS: u64 = u64::from_le_bytes([b' '; 8]);

impl<'a> Text<'a> {
    /// A text of which nothing is trimmed.
    #[inline]
    fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, length: bytes.len(), kept: bytes.len(), folded: 0 }
    }

    /// A text of that length, of which `bytes` is the beginning, with at least eight bytes more.
    #[inline]
    pub(super) fn new(bytes: &'a [u8; 264], length: usize, kept: usize) -> Self {
        let head = bytes.first_chunk().map_or(0, |head| u64::from_le_bytes(*head));
        Self { bytes: &bytes[..length.min(256)], length, kept, folded: head | SMALL_LETTERS }
    }

    /// Whether it may begin like the literal. Bytes after its end may make it seem so.
    #[inline]
    fn resembles(&self, literal: &Literal) -> bool {
        self.folded & literal.mask == literal.folded
    }
}

impl Literal {
    fn of(segment: &str) -> Self {
        let Segment { length, head, .. } = Segment::of(segment.as_bytes());
        let mask = if length < 8 { (1 << (8 * length)) - 1 } else { u64::MAX };
        let folded = (head | SMALL_LETTERS) & mask;
        Self { length, head, text: segment.as_bytes().into(), folded, mask }
    }

    #[inline]
    fn is(&self, segment: &Segment<'_>) -> bool {
        self.length == segment.length
            && self.head == segment.head
            && (self.length <= 8 || self.text[8..] == segment.text()[8..])
    }

    /// How a segment may stand for it, as [`Tree::matching`] says.
    #[inline]
    fn matches(&self, text: Text<'_>) -> Option<Match> {
        let beginning = text.bytes.get(..self.length)?;
        let is_whole = text.length == self.length;
        let has_suffix = text.bytes.get(self.length) == Some(&b'.');
        let is_trimmed = !is_whole && text.kept <= self.length;
        if !(is_whole || has_suffix || is_trimmed) || !beginning.eq_ignore_ascii_case(&self.text) {
            return None;
        }
        let is_same = beginning == &*self.text;
        Some(Match { is_same, is_whole, has_suffix, is_trimmed })
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

//! How an odd path is read: all endpoints that a server may take it for.
//!
//! It is not known which servers are behind the limiter, nor in which order they decode, cut and
//! normalise. There are thousands of combinations. So a path is not turned into its readings one by
//! one. It is read once, from left to right, and what is followed is the set of nodes of the graph
//! at which one reading or another is. At each byte about which servers differ, the set grows by
//! what each of them makes of it.
//!
//! # Why the set is never too small
//!
//! Take any server, or chain of servers, that is built of the steps below, in any order. For each
//! byte of the path, look at what that reading makes of it: a byte of a segment, the end of a
//! segment, a part that it drops. The reader has the node where this reading is in `here` (the
//! segment is still the text that was collected), in `inside` (the segment has a byte that no
//! literal has, such as a `%` or an encoded slash, so it can only be a parameter) or in `past` (the
//! segment has ended, and what follows up to the next slash is dropped), or the reading has left
//! the graph, and what it is charged to is in `off`. Each step keeps this:
//!
//! * A byte that is decoded, or not. No literal contains `%`, so a segment with an escape that is
//!   not decoded can only be a parameter, which [`step`](Reader::step) always adds for it. A literal
//!   can only match if every escape is decoded as often as possible, which is the text that is
//!   collected.
//! * A byte that is dropped, or not. The same: the bytes that servers drop are in no literal.
//! * A slash that is encoded, or a backslash, may end the segment or not.
//! * A slash may be merged with the one before it, or there is an empty segment between them.
//! * `.` may be resolved, or be a segment. `..` may be a segment. If it is resolved, the reading
//!   goes back to a node where it has been, whatever was decoded, cut or merged before. All nodes
//!   where one of the readings has been are in `been`.
//! * A byte that may begin a query, a fragment or the rest of a string: the path ends there, and
//!   goes on.
//! * `;` may end the segment's text up to the next slash, which may be an encoded one.
//! * What is trimmed or cut at the end of a path is looked for where it ends, and at each place
//!   where it may end.
//! * A host at the start and the name of a front controller may be left out: the path is at the
//!   root once more.
//!
//! The set can be larger than needed. After `..` the path is taken to be at any node where it has
//! been. Each escape is taken to be decoded or not, without regard to the others. A path without
//! `..`, `;`, `%25`, `%u`, backslashes, encoded slashes and bytes that are not valid UTF-8 is
//! charged only to what a server in common use would take it for.

use super::escape::{self, Decoded};
use super::set::{LargeSet, Set, SmallSet};
use super::spelling::{Spelling, Spellings};
use super::tree::{Match, ROOT, Text, Tree, is_script};
use super::{Billing, Endpoints};

/// What an odd path is charged to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reached {
    /// The indices of the endpoints, in no particular order. None if every reading is exempt.
    pub(super) endpoints: Endpoints,
    /// Whether an escape is malformed, or what it stands for is not valid UTF-8.
    pub(super) is_malformed: bool,
    /// Whether there was no room to follow all readings, or for all endpoints.
    pub(super) is_beyond: bool,
}

/// Reads a path, which begins with a slash.
pub(super) fn read(tree: &Tree, spellings: Spellings, path: &[u8]) -> Reached {
    if tree.is_small() {
        Reader::<SmallSet>::new(tree, spellings).read(path)
    } else {
        Reader::<LargeSet>::new(tree, spellings).read(path)
    }
}

pub(super) struct Reader<'t, S> {
    tree: &'t Tree,
    spellings: Spellings,
    /// The nodes at which the current segment begins, for readings in which its text is `text`.
    here: S,
    /// The nodes at which the current segment begins, for readings in which it is no literal.
    inside: S,
    /// The nodes at which readings are that drop everything up to the next slash.
    past: S,
    /// The nodes at which a reading has been.
    been: S,
    /// The nodes at which the path is if a segment before was the last one, but for slashes and
    /// dots.
    last: S,
    /// All nodes that have been in `last`.
    been_last: S,
    /// The nodes of literals that a suffix follows which goes on after an encoded slash.
    suffixed: S,
    /// The node of the parameter beside the literal that was the last segment, if there are both.
    beside: S,
    /// The endpoints of readings that have left the graph.
    off: S,
    /// The endpoints of readings that have ended.
    ended: S,
    /// Whether more can be said if the path ends in this segment.
    can_end: bool,
    /// The length of the text at which a control character was met. No text is that long at first.
    ended_at: usize,
    /// How often a `;` was met in this segment.
    parameters: u8,
    /// The segments that change nothing here, since they did not change anything before: a bit for
    /// each number of dots.
    settled: u8,
    /// Whether the current segment may be a host.
    may_be_host: bool,
    /// Whether a segment might have been one.
    has_host: bool,
    is_malformed: bool,
    text: Segment,
}

/// The text of the current segment, as often decoded as it can be, without what servers drop.
struct Segment {
    /// Its beginning.
    bytes: [u8; 264],
    length: usize,
    /// Its length without what is trimmed at the end.
    kept: usize,
    /// Whether it is not as it was written.
    is_altered: bool,
}

impl<'t, S: Set> Reader<'t, S> {
    pub(super) fn new(tree: &'t Tree, spellings: Spellings) -> Self {
        let text = Segment { bytes: [0; 264], length: 0, kept: 0, is_altered: false };
        Self {
            tree,
            spellings,
            here: S::of(ROOT),
            inside: S::EMPTY,
            past: S::EMPTY,
            been: S::of(ROOT),
            last: S::EMPTY,
            been_last: S::EMPTY,
            suffixed: S::EMPTY,
            beside: S::EMPTY,
            off: S::EMPTY,
            ended: S::EMPTY,
            can_end: true,
            ended_at: usize::MAX,
            parameters: 0,
            settled: 0,
            may_be_host: false,
            has_host: false,
            is_malformed: false,
            text,
        }
    }

    pub(super) fn read(mut self, path: &[u8]) -> Reached {
        let mut left = path.get(1..).unwrap_or_default();
        while let Some(byte) = left.first() {
            let length = match byte {
                byte if !SPECIAL[usize::from(*byte)] => {
                    let end = left.iter().position(|byte| SPECIAL[usize::from(*byte)]);
                    let end = end.unwrap_or(left.len());
                    self.text.push_all(&left[..end]);
                    end
                }
                b'%' => self.escape(left),
                byte => {
                    self.byte(*byte);
                    1
                }
            };
            left = left.get(length..).unwrap_or_default();
        }
        self.finish()
    }

    /// Reads the escape at the start of `text`, and says how many bytes it takes.
    fn escape(&mut self, text: &[u8]) -> usize {
        self.text.is_altered = true;
        self.is_malformed |= escape::is_malformed(text);
        let escape = escape::decode(text, self.spellings);
        match escape.decoded {
            Decoded::Byte(b'/') => self.separate(false),
            Decoded::Byte(lead @ 0x80..) => {
                return escape.length + self.character(lead, &text[escape.length..]);
            }
            Decoded::Byte(byte) => self.byte(byte),
            Decoded::Character(character) => {
                self.text.push_all(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            Decoded::Percent => self.text.push(b'%'),
            Decoded::Nothing => {}
        }
        escape.length
    }

    /// Reads the escapes that follow an escaped byte that is not ASCII, if they make a character,
    /// and says how many bytes they take. Otherwise the byte may be dropped.
    fn character(&mut self, lead: u8, text: &[u8]) -> usize {
        let size = match lead {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => 0,
        };
        let (mut bytes, mut length) = ([lead, 0, 0, 0], 0);
        for byte in bytes.iter_mut().take(size).skip(1) {
            let left = text.get(length..).filter(|left| left.first() == Some(&b'%'));
            let Some(escape) = left.map(|left| escape::decode(left, self.spellings)) else { break };
            let Decoded::Byte(decoded @ 0x80..0xc0) = escape.decoded else { break };
            *byte = decoded;
            length += escape.length;
        }
        match bytes.get(..size).map(str::from_utf8) {
            Some(Ok(character)) if !character.is_empty() => {
                self.text.push_all(character.as_bytes());
                length
            }
            _ => {
                self.is_malformed = true;
                if !self.spellings.has(Spelling::InvalidUtf8) {
                    self.text.push(lead);
                }
                0
            }
        }
    }

    /// Reads a byte that is not an encoded slash.
    #[inline]
    fn byte(&mut self, byte: u8) {
        match byte {
            b'/' => self.separate(true),
            b'\\' => self.separate(false),
            b';' => self.parameter(),
            b'?' | b'#' => {
                self.text.is_altered = true;
                self.end();
                self.text.push(byte);
                // No literal has this byte. So if the path ends later in this segment, that is no
                // other than if it had ended here.
                self.can_end = false;
            }
            // What can't be in a request line is dropped, as in `new URL`, or ends the path.
            0 | b'\t' | b'\n' | b'\r' => {
                self.is_malformed = true;
                self.text.is_altered = true;
                if self.text.length != self.ended_at {
                    self.ended_at = self.text.length;
                    self.end();
                }
            }
            byte => self.text.push(byte),
        }
    }

    /// Ends a segment. Only a slash that is written as one ends it in every reading.
    fn separate(&mut self, is_certain: bool) {
        // A segment without text, `.` and `..` can come hundreds of times in a row.
        let dots = self.text.dots().filter(|_| is_certain);
        if let Some(dots) = dots
            && self.settled & (1 << dots) != 0
        {
            self.text.clear();
            return;
        }
        let before = (self.here, self.been, self.off, self.last, self.may_be_host);
        let was_simple = self.inside == S::EMPTY && self.past == S::EMPTY && self.can_end;
        let mut next = self.step();
        if self.text.length == 0 {
            // An empty segment that is not merged, nor an empty id.
            for node in self.here.iter() {
                add(&mut self.off, self.tree.node(node).off);
            }
        }
        next.extend(&self.past);
        self.leave(&mut next);
        if self.may_be_host {
            next.insert(ROOT);
        }
        self.has_host |= self.here.contains(ROOT) && self.text.length == 0;
        self.may_be_host = match self.text.dots() {
            Some(0) => self.has_host && next.contains(ROOT),
            Some(1) => self.may_be_host,
            // What the path goes back to may be what begins with a host.
            Some(_) => self.has_host,
            None => self.may_be_host && !is_certain,
        };
        if is_certain {
            self.last.extend(&self.suffixed);
            self.suffixed = S::EMPTY;
            self.inside = S::EMPTY;
            self.past = S::EMPTY;
        } else {
            self.suffixed.extend(&self.last);
            self.inside.extend(&self.here);
        }
        self.been_last.extend(&self.last);
        self.been.extend(&next);
        self.here = next;
        self.text.clear();
        (self.can_end, self.ended_at, self.parameters) = (true, usize::MAX, 0);
        let now = (self.here, self.been, self.off, self.last, self.may_be_host);
        let is_same = before == now;
        match dots {
            Some(dots) if is_same && was_simple => self.settled |= 1 << dots,
            _ if is_same && was_simple && is_certain => {}
            _ => self.settled = 0,
        }
    }

    /// Adds where the readings are after the current segment in which it is no literal.
    fn leave(&mut self, next: &mut S) {
        for node in self.inside.iter() {
            match self.tree.parameter(self.tree.node(node)) {
                Some(child) => next.insert(child),
                None => add(&mut self.off, self.tree.node(node).off),
            }
        }
    }

    /// Where the readings are after the current segment if that is `text`. Those that it takes out
    /// of the graph are added to `off`, and what only applies to the last segment is put into
    /// `last`.
    fn step(&mut self) -> S {
        if self.here == S::EMPTY && self.text.dots().is_none() {
            self.last = S::EMPTY;
            return S::EMPTY;
        }
        let (tree, spellings) = (self.tree, self.spellings);
        let text = &self.text;
        let (mut next, mut last, mut beside) = (S::EMPTY, S::EMPTY, S::EMPTY);
        match text.dots() {
            Some(0 | 1) => next = self.here,
            Some(_) => next = self.been,
            None => {}
        }
        let as_text = Text::new(&text.bytes, text.length, text.kept);
        for id in self.here.iter() {
            let node = tree.node(id);
            let mut is_exact = false;
            tree.matching(node, as_text, |child, it| {
                if it == Match::EXACT {
                    is_exact = true;
                    next.insert(child);
                } else if !it.is_same && !spellings.has(Spelling::Capitals) {
                } else if it.is_whole {
                    next.insert(child);
                } else if it.has_suffix && spellings.has(Spelling::FormatSuffix)
                    || it.is_trimmed && spellings.has(Spelling::TrailingDots)
                {
                    last.insert(child);
                }
            });
            if is_exact && !text.is_altered {
                if let Some(child) = tree.parameter(node) {
                    beside.insert(child);
                }
                continue;
            }
            let is_empty = text.length == 0;
            match tree.parameter(node) {
                Some(_) if is_empty && !text.is_altered && !spellings.has(Spelling::EmptyId) => {}
                Some(child) => next.insert(child),
                None if is_empty && !text.is_altered => {}
                None => add(&mut self.off, node.off),
            }
        }
        if self.here.contains(ROOT)
            && spellings.has(Spelling::FrontController)
            && is_script(text.beginning())
        {
            next.insert(ROOT);
        }
        match text.dots() {
            Some(0 | 1) => {}
            Some(_) => self.last = self.been_last,
            None => (self.last, self.beside) = (last, beside),
        }
        next
    }

    /// Reads a `;`. For some servers it begins the query, for others what is dropped up to the next
    /// slash. For the rest it is a byte like others.
    fn parameter(&mut self) {
        if self.parameters == 2 {
            // The first may be a byte like others, and the second the one that counts. There is no
            // more to a third.
            return;
        }
        self.parameters += 1;
        let before = self.last;
        let mut next = self.step();
        if self.spellings.has(Spelling::SemicolonQuery) {
            self.end_at(next, before);
        }
        self.leave(&mut next);
        self.past.extend(&next);
        self.add_ends(self.last);
        self.inside.extend(&self.here);
        self.here = S::EMPTY;
        self.text.clear();
    }

    /// Adds what the path is charged to if it ends here.
    fn end(&mut self) {
        if !self.can_end {
            return;
        }
        let before = self.last;
        let next = self.step();
        self.end_at(next, before);
        self.last = before;
    }

    /// The same, where the readings are at `next` after the current segment, and the segment before
    /// it was the last one for those in `before`.
    fn end_at(&mut self, mut next: S, before: S) {
        if self.text.kept == 0 {
            // A slash at the end, which is not a segment, or dots and spaces only: they are
            // trimmed, or are a dot segment.
            self.end_with_slash(self.here);
            self.add_ends(before);
        }
        match self.text.dots() {
            Some(2) => {
                self.end_with_slash(self.been);
                self.add_ends(self.been_last);
            }
            // Mojolicious does not take `/v2/agent/all/%0a` for the literal.
            Some(0) if self.text.is_altered => self.add_ends(self.beside),
            Some(0) => next = S::EMPTY,
            _ => {}
        }
        next.extend(&self.suffixed);
        self.leave(&mut next);
        next.extend(&self.past);
        if self.may_be_host {
            next.insert(ROOT);
        }
        next.extend(&self.last);
        self.add_ends(next);
        self.ended.extend(&self.off);
    }

    fn add_ends(&mut self, nodes: S) {
        for id in nodes.iter() {
            add(&mut self.ended, self.tree.node(id).end);
        }
    }

    /// Adds what a path is charged to that ends with a slash at these nodes. The slash is ignored,
    /// is a part of what `{*name}` matches, or an empty id follows it.
    fn end_with_slash(&mut self, nodes: S) {
        for id in nodes.iter() {
            let node = self.tree.node(id);
            add(&mut self.ended, node.end);
            if let Some(wider) = node.wider {
                // For axum the slash is a part of what `{*name}` matches.
                add(&mut self.ended, wider);
            }
            if self.spellings.has(Spelling::EmptyId) {
                let child = self.tree.parameter(node).map(|child| self.tree.node(child));
                if let Some(child) = child.filter(|child| child.is_end) {
                    add(&mut self.ended, child.end);
                }
                if let Some(rest) = node.rest {
                    add(&mut self.ended, rest);
                }
            }
        }
    }

    fn finish(mut self) -> Reached {
        self.end();
        let mut endpoints = Endpoints::NONE;
        let mut is_beyond = false;
        for index in self.ended.iter() {
            is_beyond |= !endpoints.push(index as usize);
        }
        let sets = [&self.here, &self.inside, &self.past, &self.ended];
        is_beyond |= sets.iter().any(|set| set.is_beyond());
        Reached { endpoints, is_malformed: self.is_malformed, is_beyond }
    }
}

/// Adds what a reading is charged to.
#[inline]
fn add<S: Set>(endpoints: &mut S, billing: Billing) {
    if let Billing::Endpoint(index) = billing {
        endpoints.insert(u32::try_from(index).unwrap_or(u32::MAX));
    }
}

impl Segment {
    #[inline]
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length).filter(|_| self.length < LONGEST) {
            *place = byte;
        }
        self.length += 1;
        if !matches!(byte, b'.' | b' ' | 0x0b | 0x0c) {
            self.kept = self.length;
        }
    }

    /// Adds bytes that are not trimmed.
    #[inline]
    fn push_all(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.length < LONGEST {
            let room = &mut self.bytes[self.length..LONGEST];
            for (place, byte) in room.iter_mut().zip(bytes) {
                *place = *byte;
            }
        }
        self.length += bytes.len();
        self.kept = self.length;
    }

    fn clear(&mut self) {
        (self.length, self.kept, self.is_altered) = (0, 0, false);
    }

    /// How many dots it is, if it is at most two dots and nothing else.
    #[inline]
    fn dots(&self) -> Option<usize> {
        let is_dots = match self.length {
            0 => true,
            1 => self.bytes[0] == b'.',
            2 => self.bytes[0] == b'.' && self.bytes[1] == b'.',
            _ => false,
        };
        is_dots.then_some(self.length)
    }

    /// The whole text, or a beginning that is longer than any literal.
    #[inline]
    fn beginning(&self) -> &[u8] {
        &self.bytes[..self.length.min(LONGEST)]
    }
}

/// As much of a segment is compared with literals. They are shorter.
const LONGEST: usize = 256;

/// Whether a byte is more than a part of a segment's text that is not trimmed.
const SPECIAL: [bool; 256] = {
    let mut special = [false; 256];
    let bytes = b"/\\;%?#. \0\t\n\r\x0b\x0c";
    let mut at = 0;
    while at < bytes.len() {
        special[bytes[at] as usize] = true;
        at += 1;
    }
    special
};

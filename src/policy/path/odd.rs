//! How an odd path is read: all endpoints that a server may take it for.
//!
//! It is not known which servers are behind the limiter, nor in which order they decode, cut and
//! normalise. There are thousands of combinations. So a path is not turned into its readings one by
//! one. It is read once, from left to right, and what is followed is the set of nodes of the graph
//! at which one reading or another is. At each byte about which servers differ, the set grows by
//! what each of them makes of it.
//!
//! `DESIGN.md` says which steps servers are taken to be built of, and why the endpoint of every
//! reading is reported ("How an odd path is read"). In short, a reading is at a node in `here` (the
//! segment is still the text that was collected), `inside` (the segment can only be a parameter) or
//! `past` (what follows up to the next slash is dropped), or it has left the graph, and what it is
//! charged to is in `off`. Each step keeps it so.
//!
//! The set can be larger than needed, never smaller.

use std::mem;

use super::escape::{self, Decoded};
use super::set::{LargeSet, Set, SmallSet};
use super::spelling::{Spelling, Spellings};
use super::tree::{Match, ROOT, Text, Tree, folded, is_script};
use super::{Billing, Endpoints};

/// What an odd path is charged to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reached {
    /// The indices of the endpoints, in no particular order. None if every reading is exempt.
    pub(super) endpoints: Endpoints,
    /// Whether the path has a malformed escape, bytes that are not valid UTF-8, a zero byte, a tab
    /// or a line break. Such a path is never exempt.
    pub(super) is_malformed: bool,
    /// Whether the path is too ambiguous to be read: nodes were looked at too often, or a set had
    /// no room.
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
    /// Nodes of literals that the last segment before this one matched with a suffix, or with dots
    /// or spaces at the end. They count only if nothing but slashes and dots follows.
    last: S,
    /// All nodes that have been in `last`.
    been_last: S,
    /// Nodes of literals with a suffix that contains an encoded slash: `/call.json%2Fx`.
    suffixed: S,
    /// The node of the parameter beside the literal that was the last segment, if there are both.
    beside: S,
    /// The endpoints of readings that have left the graph.
    off: S,
    /// The endpoints of readings that have ended.
    ended: S,
    /// The endpoints of readings that end at white space, if a line break follows somewhere: a
    /// proxy that decodes the path makes the request line `GET /call HTTP/1.1` of it, and a header.
    ended_at_space: S,
    /// Whether this segment has white space.
    has_space: bool,
    /// Whether an end of the path in this segment can still add an endpoint. Not after a `?`, `#`
    /// or zero byte, which no literal has.
    can_end: bool,
    /// The length of the text at the last line break or tab of this segment, so that several in a
    /// row are read once. `usize::MAX` if there was none.
    ended_at: usize,
    /// How often a `;` was met in this segment.
    parameters: u8,
    /// How many dots there are before the `;` of this segment, if there is one and nothing else
    /// before it.
    dots_before_parameters: Option<usize>,
    /// Which segments without text, `.` and `..` changed nothing when they were read last: a bit
    /// for each number of dots. Repeated ones are skipped.
    settled: u8,
    /// Whether the current segment may be a host.
    may_be_host: bool,
    /// Whether a segment might have been one.
    has_host: bool,
    is_malformed: bool,
    /// As in [`Reached`].
    is_beyond: bool,
    /// How often a node was looked at.
    looks: usize,
    text: Segment,
}

/// The text of the current segment, as often decoded as it can be, without what servers drop.
struct Segment {
    /// Its beginning.
    bytes: [u8; 264],
    /// The last bytes of those that are not in its beginning.
    ending: [u8; 8],
    length: usize,
    /// Its length without dots and white space at the end.
    kept: usize,
    /// Its length without white space at the end.
    solid: usize,
    /// Its length up to and including the last `%` that no escape begins with, or zero.
    percent: usize,
    /// Whether it is not as it was written.
    is_altered: bool,
}

impl<'t, S: Set> Reader<'t, S> {
    pub(super) fn new(tree: &'t Tree, spellings: Spellings) -> Self {
        let text = Segment {
            bytes: [0; 264],
            ending: [0; 8],
            length: 0,
            kept: 0,
            solid: 0,
            percent: 0,
            is_altered: false,
        };
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
            ended_at_space: S::EMPTY,
            has_space: false,
            can_end: true,
            ended_at: usize::MAX,
            parameters: 0,
            dots_before_parameters: None,
            settled: 0,
            may_be_host: false,
            has_host: false,
            is_malformed: false,
            is_beyond: false,
            looks: 0,
            text,
        }
    }

    pub(super) fn read(mut self, path: &[u8]) -> Reached {
        let most = MOST_LOOKS + LOOKS_PER_BYTE * path.len();
        let mut left = path.get(1..).unwrap_or_default();
        while let Some(byte) = left.first() {
            if self.looks > most {
                self.is_beyond = true;
                break;
            }
            let length = match byte {
                byte if !SPECIAL[usize::from(*byte)] => {
                    let end = left.iter().position(|byte| SPECIAL[usize::from(*byte)]);
                    let end = end.unwrap_or(left.len());
                    self.text.push_all(&left[..end]);
                    end
                }
                b'%' => self.escape(left),
                0xc4 | 0xc5 => self.written_character(left, 2),
                0xe2 => self.written_character(left, 3),
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
        if escape.is_broken {
            self.break_line();
        }
        match escape.decoded {
            Decoded::Byte(b'/') => self.separate(false),
            Decoded::Byte(lead @ 0x80..) => {
                return escape.length + self.character(lead, &text[escape.length..]);
            }
            Decoded::Byte(byte) => self.byte(byte),
            Decoded::Character(character) => self.push_character(character),
            Decoded::Percent => {
                if is_cut_off(text) {
                    // uWSGI drops an escape that is cut off by the end of the path. Jetty takes a
                    // `?` for its last digit, so that the query is a part of the path.
                    self.end();
                    self.is_beyond |= self.spellings.has(Spelling::UnicodeEscape);
                }
                self.text.push(b'%');
                if escape.length == 1 {
                    self.text.percent = self.text.length;
                }
            }
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
            if escape.is_broken {
                self.break_line();
            }
            *byte = decoded;
            length += escape.length;
        }
        let character = bytes.get(..size).and_then(|bytes| std::str::from_utf8(bytes).ok());
        match character.and_then(|text| text.chars().next()) {
            Some(character) => {
                self.push_character(character);
                length
            }
            None => {
                self.is_malformed = true;
                if matches!(lead, 0x85 | 0xa0) {
                    // White space in Latin-1, for Python's server and Mojolicious.
                    self.space();
                }
                if !self.spellings.has(Spelling::InvalidUtf8) {
                    self.text.push(lead);
                }
                0
            }
        }
    }

    /// Reads the character at the start of `text`, which takes so many bytes and may be one that is
    /// folded.
    fn written_character(&mut self, text: &[u8], length: usize) -> usize {
        let bytes = text.get(..length).unwrap_or(text);
        match std::str::from_utf8(bytes).ok().and_then(|text| text.chars().next()) {
            Some(character) => self.push_character(character),
            None => self.text.push_all(bytes),
        }
        bytes.len()
    }

    fn push_character(&mut self, character: char) {
        match folded(character) {
            Some(letter) if self.spellings.has(Spelling::Capitals) && !self.tree.has_folded() => {
                self.text.is_altered = true;
                self.text.push(letter);
            }
            _ => self.text.push_all(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }

    /// Reads a byte that is not an encoded slash.
    #[inline]
    fn byte(&mut self, byte: u8) {
        match byte {
            b'/' => self.separate(true),
            b'\\' => self.separate(false),
            b';' => self.parameter(),
            b'?' | b'#' | 0 => {
                self.is_malformed |= byte == 0;
                self.text.is_altered = true;
                self.end();
                self.text.push(byte);
                // No literal has this byte. So if the path ends later in this segment, that is no
                // other than if it had ended here.
                self.can_end = false;
            }
            b'\t' | b'\n' | b'\r' => self.break_line(),
            byte if is_blank(byte) => {
                self.space();
                self.text.push(byte);
            }
            byte => self.text.push(byte),
        }
    }

    /// Notes where the path ends if it ends at this white space.
    fn space(&mut self) {
        if !self.has_space {
            self.has_space = true;
            self.end_of_literal();
            let ended = mem::replace(&mut self.ended, self.ended_at_space);
            self.end();
            self.ended_at_space = mem::replace(&mut self.ended, ended);
        }
    }

    /// Reads a line break or a tab. It is dropped, as in `new URL`, or ends the path.
    fn break_line(&mut self) {
        self.is_malformed = true;
        self.text.is_altered = true;
        self.ended.extend(&self.ended_at_space);
        if self.text.length != self.ended_at {
            self.ended_at = self.text.length;
            self.end();
        }
    }

    /// Ends a segment. Only a slash that is written as one ends it in every reading.
    fn separate(&mut self, is_certain: bool) {
        // To uWSGI two bytes after a `%` belong to it, whatever they are.
        let is_certain =
            is_certain && (self.text.percent == 0 || self.text.length >= self.text.percent + 2);
        // A segment without text, `.` and `..` can come hundreds of times in a row.
        let dots = self.text.dots().filter(|_| is_certain && !self.text.is_altered);
        if dots.is_some_and(|dots| self.settled & (1 << dots) != 0) {
            self.text.clear();
            return;
        }
        let before = dots.map(|_| self.state());
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
        let is_empty = self.text.length == 0 || self.is_trimmed_away();
        self.has_host |= is_empty && self.has_root(&self.here);
        let written = if is_empty { Some(0) } else { self.text.dots() };
        let either = [written, self.dots_before_parameters];
        self.may_be_host = either.into_iter().any(|dots| match dots {
            Some(0) => self.has_host && self.has_root(&next),
            Some(1) => self.may_be_host,
            // What the path goes back to may be what begins with a host.
            Some(_) => self.has_host,
            None => self.may_be_host && !is_certain,
        });
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
        (self.has_space, self.dots_before_parameters) = (false, None);
        match dots {
            Some(dots) if was_simple && before == Some(self.state()) => self.settled |= 1 << dots,
            _ => self.settled = 0,
        }
    }

    /// What a segment without text, `.` or `..` can change.
    fn state(&self) -> (S, S, S, S, bool) {
        (self.here, self.been, self.off, self.last, self.may_be_host)
    }

    /// Whether there is text in the segment, but nothing is left where its end is trimmed.
    fn is_trimmed_away(&self) -> bool {
        let has_dots = self.spellings.has(Spelling::TrailingDots);
        let kept = if has_dots { self.text.kept } else { self.text.solid };
        kept == 0 && self.text.dots().is_none()
    }

    /// Whether a path begins at one of these nodes.
    fn has_root(&self, nodes: &S) -> bool {
        nodes.contains(ROOT) || nodes.iter().any(|id| self.tree.node(id).is_root)
    }

    /// Adds where the readings are after the current segment in which it is no literal.
    fn leave(&mut self, next: &mut S) {
        for node in self.inside.iter() {
            self.looks += 1;
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
        let (tree, spellings) = (self.tree, self.spellings);
        let text = &self.text;
        let (mut next, mut last, mut beside) = (S::EMPTY, S::EMPTY, S::EMPTY);
        if spellings.has(Spelling::FrontController) && text.is_script() {
            next.insert(if self.has_root(&self.here) { ROOT } else { tree.script() });
        }
        if self.here == S::EMPTY && text.dots().is_none() {
            self.last = S::EMPTY;
            return next;
        }
        match text.dots() {
            Some(0 | 1) => next.extend(&self.here),
            Some(_) => next.extend(&self.been),
            None if self.is_trimmed_away() => {
                next.extend(&self.here);
                if text.is_parent() {
                    next.extend(&self.been);
                }
            }
            None => {}
        }
        let kept = if spellings.has(Spelling::TrailingDots) { text.kept } else { text.solid };
        let as_text = Text::new(&text.bytes, text.length, kept);
        for id in self.here.iter() {
            let node = tree.node(id);
            self.looks += tree.looks(node, as_text);
            let mut is_exact = false;
            tree.matching(node, as_text, |child, it| {
                if it == Match::EXACT {
                    is_exact = true;
                    next.insert(child);
                } else if !it.is_same && !spellings.has(Spelling::Capitals) {
                } else {
                    if it.is_whole || it.is_trimmed {
                        next.insert(child);
                    }
                    if it.has_suffix && spellings.has(Spelling::FormatSuffix) {
                        last.insert(child);
                    }
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
        self.has_host |= self.text.length == 0 && self.has_root(&self.here);
        self.dots_before_parameters = self.dots_before_parameters.or(self.text.dots());
        let before = self.last;
        let mut next = self.step();
        if self.spellings.has(Spelling::SemicolonQuery) {
            self.end_at(next, before);
        }
        self.leave(&mut next);
        self.note(&next);
        self.past.extend(&next);
        self.add_ends(self.last);
        self.inside.extend(&self.here);
        self.here = S::EMPTY;
        self.settled = 0;
        self.text.clear();
    }

    /// Adds what the path is charged to if it ends here, at the white space after a literal. For
    /// the JDK's server it does, behind a proxy that decodes.
    fn end_of_literal(&mut self) {
        let text = Text::new(&self.text.bytes, self.text.length, self.text.length);
        let mut nodes = S::EMPTY;
        for id in self.here.iter() {
            self.looks += 1;
            self.tree.matching(self.tree.node(id), text, |child, it| {
                if it.is_whole && (it.is_same || self.spellings.has(Spelling::Capitals)) {
                    nodes.insert(child);
                }
            });
        }
        self.add_ends(nodes);
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
            _ if self.text.is_parent() => {
                self.end_with_slash(self.been);
                self.add_ends(self.been_last);
            }
            // Mojolicious does not take `/v2/agent/all/%0a` for the literal, nor does Caddy take
            // `/v2/agent/all/.` for it.
            Some(0) if self.text.is_altered => self.add_ends(self.beside),
            Some(1) => self.add_ends(self.beside),
            Some(0) => next = S::EMPTY,
            _ => {}
        }
        next.extend(&self.suffixed);
        self.leave(&mut next);
        next.extend(&self.past);
        if self.may_be_host {
            self.end_with_slash(S::of(ROOT));
        }
        next.extend(&self.last);
        self.note(&next);
        self.add_ends(next);
        self.ended.extend(&self.off);
    }

    /// Notes whether there was no room in a set that may not last.
    #[inline]
    fn note(&mut self, set: &S) {
        self.is_beyond |= set.is_beyond();
    }

    fn add_ends(&mut self, nodes: S) {
        for id in nodes.iter() {
            self.looks += 1;
            add(&mut self.ended, self.tree.node(id).end);
        }
    }

    /// Adds what a path is charged to that ends with a slash at these nodes. The slash is ignored,
    /// is a part of what `{*name}` matches, or an empty id follows it.
    fn end_with_slash(&mut self, nodes: S) {
        for id in nodes.iter() {
            self.looks += 1;
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
        // What has been in the other sets is in these, or in a set that `note` has looked at.
        let sets = [&self.been, &self.been_last, &self.ended];
        let mut is_beyond = self.is_beyond || sets.iter().any(|set| set.is_beyond());
        for index in self.ended.iter() {
            is_beyond |= !endpoints.push(index as usize);
        }
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
        self.store(byte);
        self.length += 1;
        if !is_blank(byte) {
            self.solid = self.length;
            if byte != b'.' {
                self.kept = self.length;
            }
        }
    }

    #[inline]
    fn store(&mut self, byte: u8) {
        match self.bytes.get_mut(self.length) {
            Some(place) if self.length < LONGEST => *place = byte,
            _ => self.store_last(byte),
        }
    }

    fn store_last(&mut self, byte: u8) {
        self.ending.rotate_left(1);
        self.ending[7] = byte;
    }

    /// Whether it is the name of a script.
    #[inline]
    fn is_script(&self) -> bool {
        self.length <= LONGEST && is_script(self.beginning())
            || self.length > LONGEST && {
                // What of the ending is still in the beginning.
                let mut ending = self.ending;
                let stored = ending.len().saturating_sub(self.length - LONGEST);
                ending[..stored].copy_from_slice(&self.bytes[LONGEST - stored..LONGEST]);
                is_script(&ending)
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
        let stored = LONGEST.saturating_sub(self.length).min(bytes.len());
        let last = bytes.len().saturating_sub(self.ending.len()).max(stored);
        for byte in &bytes[last..] {
            self.store_last(*byte);
        }
        self.length += bytes.len();
        (self.kept, self.solid) = (self.length, self.length);
    }

    fn clear(&mut self) {
        (self.length, self.kept, self.solid, self.percent) = (0, 0, 0, 0);
        self.is_altered = false;
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

    /// Whether it is `..`, but for white space at the end.
    fn is_parent(&self) -> bool {
        self.kept == 0 && {
            let mut bytes = self.beginning().iter();
            bytes.by_ref().take(2).filter(|byte| **byte == b'.').count() == 2
                && !bytes.as_slice().contains(&b'.')
        }
    }

    /// The whole text, or a beginning that is longer than any literal.
    #[inline]
    fn beginning(&self) -> &[u8] {
        &self.bytes[..self.length.min(LONGEST)]
    }
}

/// How often nodes are looked at before a path is too ambiguous to be read, and how often more for
/// each of its bytes. So the time depends on the length of the path, but hardly on the policy.
/// Under Bolna's policy the worst paths that are known need five looks for each byte.
const MOST_LOOKS: usize = 1024;
const LOOKS_PER_BYTE: usize = 6;

/// Whether the text, which begins with `%`, ends before its escape does.
fn is_cut_off(text: &[u8]) -> bool {
    match text {
        [_, b'u' | b'U', digits @ ..] => digits.len() < 4,
        _ => text.len() < 3,
    }
}

/// Whether a byte ends a word but no line. For Python the four separators of ASCII do.
#[inline]
const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | 0x0b | 0x0c | 0x1c..=0x1f)
}

/// As much of a segment is compared with literals. They are shorter.
const LONGEST: usize = 256;

/// Whether a byte is more than a part of a segment's text that is not trimmed.
const SPECIAL: [bool; 256] = {
    let mut special = [false; 256];
    // The first bytes of the characters of `folded`.
    (special[0xc4], special[0xc5], special[0xe2]) = (true, true, true);
    let bytes = b"/\\;%?#. \0\t\n\r\x0b\x0c\x1c\x1d\x1e\x1f";
    let mut at = 0;
    while at < bytes.len() {
        special[bytes[at] as usize] = true;
        at += 1;
    }
    special
};

//! Structured fields ([RFC 9651](https://www.rfc-editor.org/rfc/rfc9651)), as far as limits use
//! them.

use std::borrow::Cow;
use std::convert::Infallible;

use sfv::visitor::{
    DictionaryVisitor, EntryVisitor, Ignored, InnerListVisitor, ItemVisitor, ListVisitor,
    ParameterVisitor,
};
use sfv::{BareItemFromInput, KeyRef, Parser};

use super::fields::Lines;

/// The longest Integer.
const MOST_DIGITS: usize = 15;

/// The bare item of a member.
pub(super) enum Item<'h> {
    /// A String, or a Token, which some servers send instead.
    Text(Cow<'h, [u8]>),
    /// Anything else.
    Value(Value<'h>),
}

/// The value of a parameter or of a member of a Dictionary.
#[derive(Clone, Copy)]
pub(super) enum Value<'h> {
    /// There is none.
    Absent,
    /// An Integer that is not negative.
    Number(u64),
    /// A Token, or a String without escapes.
    Text(&'h [u8]),
    /// Anything else.
    Other,
}

impl Value<'_> {
    pub(super) fn number(self) -> Option<u64> {
        if let Self::Number(number) = self { Some(number) } else { None }
    }
}

impl<'h> From<BareItemFromInput<'h>> for Item<'h> {
    fn from(item: BareItemFromInput<'h>) -> Self {
        match item {
            BareItemFromInput::String(Cow::Owned(text)) => {
                Self::Text(Cow::Owned(String::from(text).into_bytes()))
            }
            item => match item.into() {
                Value::Text(text) => Self::Text(Cow::Borrowed(text)),
                value => Self::Value(value),
            },
        }
    }
}

impl<'h> From<BareItemFromInput<'h>> for Value<'h> {
    fn from(item: BareItemFromInput<'h>) -> Self {
        match item {
            BareItemFromInput::String(Cow::Borrowed(text)) => Self::Text(text.as_str().as_bytes()),
            BareItemFromInput::Token(text) => Self::Text(text.as_str().as_bytes()),
            BareItemFromInput::Integer(number) => {
                u64::try_from(number).map_or(Self::Other, Self::Number)
            }
            _ => Self::Other,
        }
    }
}

/// Calls `each` for each Item of a List, with the values of its parameters `names`. Inner Lists are
/// skipped.
///
/// Returns `None` if the field is not a List. The results of the calls until then have to be
/// discarded.
#[inline]
pub(super) fn items<'h, const N: usize>(
    field: Lines<'h>,
    names: [&str; N],
    mut each: impl FnMut(&Item<'h>, [Value<'h>; N]),
) -> Option<()> {
    lines(field, |line| {
        plain(line, names, &mut each).or_else(|| {
            Parser::new(line).parse_list_with_visitor(Items { names, each: &mut each }).ok()
        })
    })
}

/// The values of the Dictionary members `names`, without their parameters. `None` if the field is
/// not a Dictionary.
pub(super) fn members<'h, const N: usize>(
    field: Lines<'h>,
    names: [&str; N],
) -> Option<[Value<'h>; N]> {
    let mut values = [Value::Absent; N];
    lines(field, |line| {
        Parser::new(line).parse_dictionary_with_visitor(Members { names, values: &mut values }).ok()
    })?;
    Some(values)
}

/// The value of a field that is one Item, without its parameters. `None` if the field is not one
/// Item.
pub(super) fn item<'h>(field: Lines<'h>) -> Option<Value<'h>> {
    let mut lines = field.iter();
    let line = lines.next().filter(|_| lines.next().is_none())?;
    let mut value = Value::Absent;
    Parser::new(line.as_bytes().trim_ascii())
        .parse_item_with_visitor(Slot(Some(&mut value)))
        .ok()?;
    Some(value)
}

/// Several lines form one List or Dictionary. An empty line is an error, because joining the lines
/// would leave two commas with nothing in between.
#[inline]
fn lines<'h>(field: Lines<'h>, mut parse: impl FnMut(&'h [u8]) -> Option<()>) -> Option<()> {
    // This is nearly always so, and an iterator of all lines takes longer.
    if let Some(line) = field.only() {
        return parse(line.as_bytes().trim_ascii());
    }
    field.iter().try_for_each(|line| {
        let line = line.as_bytes().trim_ascii();
        if line.is_empty() && field.has_more() {
            return None;
        }
        parse(line)
    })
}

/// Reads a List of one Item in its most common form: `"name";a=1;b=2`, with the parameters in the
/// order of `names`.
///
/// The parser has the same result, but takes 80 ns.
#[inline]
fn plain<'h, const N: usize>(
    line: &'h [u8],
    names: [&str; N],
    each: &mut impl FnMut(&Item<'h>, [Value<'h>; N]),
) -> Option<()> {
    let text = after(line, "\"")?;
    let end = text
        .iter()
        .position(|&byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-')))?;
    let (text, rest) = text.split_at(end);
    let mut rest = after(rest, "\"")?;
    let mut values = [Value::Absent; N];
    for (name, value) in names.iter().zip(&mut values) {
        if rest.is_empty() {
            break;
        }
        rest = after(after(after(rest, ";")?, name)?, "=")?;
        let digits = rest
            .iter()
            .take(MOST_DIGITS + 1)
            .map_while(|byte| byte.is_ascii_digit().then(|| byte - b'0'));
        let (number, digits) = digits
            .fold((0, 0), |(number, digits), digit| (10 * number + u64::from(digit), digits + 1));
        if !(1..=MOST_DIGITS).contains(&digits) {
            return None;
        }
        *value = Value::Number(number);
        rest = &rest[digits..];
    }
    rest.is_empty().then(|| each(&Item::Text(Cow::Borrowed(text)), values))
}

/// The text after `prefix`. The prefixes are so short that calling a comparison costs more than the
/// comparison.
#[inline]
fn after<'h>(text: &'h [u8], prefix: &str) -> Option<&'h [u8]> {
    prefix.bytes().try_fold(text, |text, byte| {
        text.split_first().filter(|(first, _)| **first == byte).map(|(_, rest)| rest)
    })
}

struct Items<'a, const N: usize, F> {
    names: [&'a str; N],
    each: &'a mut F,
}

impl<'h, const N: usize, F: FnMut(&Item<'h>, [Value<'h>; N])> ListVisitor<'h> for Items<'_, N, F> {
    type Out = ();
    type Error = Infallible;

    #[inline]
    fn entry(&mut self) -> Result<impl EntryVisitor<'h>, Infallible> {
        Ok(Items { names: self.names, each: &mut *self.each })
    }

    fn finish(self) -> Result<(), Infallible> {
        Ok(())
    }
}

impl<'h, const N: usize, F: FnMut(&Item<'h>, [Value<'h>; N])> EntryVisitor<'h> for Items<'_, N, F> {
    type Error = Infallible;

    #[inline]
    fn item(self) -> Result<impl ItemVisitor<'h>, Infallible> {
        Ok(self)
    }

    fn inner_list(self) -> Result<impl InnerListVisitor<'h>, Infallible> {
        Ok(Ignored)
    }
}

impl<'h, const N: usize, F: FnMut(&Item<'h>, [Value<'h>; N])> ItemVisitor<'h> for Items<'_, N, F> {
    type Out = ();
    type Error = Infallible;

    #[inline]
    fn bare_item(
        self,
        item: BareItemFromInput<'h>,
    ) -> Result<impl ParameterVisitor<'h, Out = ()>, Infallible> {
        Ok(Parameters { list: self, item: item.into(), values: [Value::Absent; N] })
    }
}

struct Parameters<'a, 'h, const N: usize, F> {
    list: Items<'a, N, F>,
    item: Item<'h>,
    values: [Value<'h>; N],
}

impl<'h, const N: usize, F: FnMut(&Item<'h>, [Value<'h>; N])> ParameterVisitor<'h>
    for Parameters<'_, 'h, N, F>
{
    type Out = ();
    type Error = Infallible;

    // If several parameters have one name, the last counts.
    #[inline]
    fn parameter(
        &mut self,
        name: &'h KeyRef,
        value: BareItemFromInput<'h>,
    ) -> Result<(), Infallible> {
        if let Some(at) = self.list.names.iter().position(|wanted| name.as_str() == *wanted) {
            self.values[at] = value.into();
        }
        Ok(())
    }

    #[inline]
    fn finish(self) -> Result<(), Infallible> {
        (self.list.each)(&self.item, self.values);
        Ok(())
    }
}

struct Members<'a, 'h, const N: usize> {
    names: [&'a str; N],
    values: &'a mut [Value<'h>; N],
}

impl<'h, const N: usize> DictionaryVisitor<'h> for Members<'_, 'h, N> {
    type Out = ();
    type Error = Infallible;

    fn entry(&mut self, name: &'h KeyRef) -> Result<impl EntryVisitor<'h>, Infallible> {
        let at = self.names.iter().position(|wanted| name.as_str() == *wanted);
        Ok(Slot(at.map(|at| &mut self.values[at])))
    }

    fn finish(self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Where the value of an Item is stored, if anywhere.
struct Slot<'a, 'h>(Option<&'a mut Value<'h>>);

impl<'h> EntryVisitor<'h> for Slot<'_, 'h> {
    type Error = Infallible;

    fn item(self) -> Result<impl ItemVisitor<'h>, Infallible> {
        Ok(self)
    }

    fn inner_list(self) -> Result<impl InnerListVisitor<'h>, Infallible> {
        if let Some(value) = self.0 {
            *value = Value::Other;
        }
        Ok(Ignored)
    }
}

impl<'h> ItemVisitor<'h> for Slot<'_, 'h> {
    type Out = ();
    type Error = Infallible;

    fn bare_item(
        self,
        item: BareItemFromInput<'h>,
    ) -> Result<impl ParameterVisitor<'h, Out = ()>, Infallible> {
        if let Some(value) = self.0 {
            *value = item.into();
        }
        Ok(Ignored)
    }
}

//! The texts of a thread, and those that threads share.

use std::cell::Cell;

use bytes::Bytes;
use http::{HeaderValue, Response};

use super::own::{Found, Own};
use super::page::{Page, PageKey, hash};
use super::shared::{Leaked, Shared};
use crate::layer::response::buffer::Buffer;
use crate::layer::response::fields::draft11;
use crate::values::{Decision, Limit};

/// The room for both header fields of a limit: twice a name of up to 64 characters, and at most 60
/// other characters.
const FIELDS: usize = 256;

/// The room for the texts of a refusal, in which a name occurs six times.
const REFUSAL: usize = 1280;

static PAGES: Shared<PageKey, Page> = Shared::new();
static REFUSALS: Shared<RefusalKey, Response<Bytes>> = Shared::new();

thread_local! {
    static TEXTS: Cell<Option<Box<Texts>>> = const { Cell::new(None) };
}

/// The values of `RateLimit-Policy` and `RateLimit`, if they are in the shared table.
#[inline]
pub(in crate::layer::response) fn shared_fields(
    decision: &Decision,
) -> Option<(&'static HeaderValue, &'static HeaderValue)> {
    let (key, index) = PageKey::of(decision)?;
    Some(PAGES.get(key.hash(), &key)?.fields(index))
}

/// A refusal, if it is in the shared table.
#[inline]
pub(in crate::layer::response) fn shared_refusal(
    key: &RefusalKey,
) -> Option<&'static Response<Bytes>> {
    REFUSALS.get(key.hash(), key)
}

/// Calls a closure with the texts of the thread.
///
/// They are taken out meanwhile. So if the closure itself came here again, it would find new ones,
/// and the same is true while the thread ends.
pub(in crate::layer::response) fn with<T>(f: impl FnOnce(&mut Texts) -> T) -> T {
    let mut texts = TEXTS.try_with(Cell::take).ok().flatten().unwrap_or_default();
    let result = f(&mut texts);
    let _ = TEXTS.try_with(|place| place.set(Some(texts)));
    result
}

/// The texts of a thread.
#[derive(Default)]
pub(in crate::layer::response) struct Texts {
    buffer: Buffer,
    pages: Own<PageKey, Page>,
    refusals: Own<RefusalKey, Response<Bytes>>,
}

impl Texts {
    /// The values of `RateLimit-Policy` and `RateLimit`, which are not in the shared table.
    pub(in crate::layer::response) fn fields(
        &mut self,
        decision: &Decision,
    ) -> (HeaderValue, HeaderValue) {
        if let Some((key, index)) = PageKey::of(decision) {
            let page = match self.pages.find(key.hash(), &key) {
                Found::Text(page) => Some(page),
                Found::Room(room) => {
                    let shared = PAGES.add(key.hash(), key, || Page::new(key).leaked());
                    Some(shared.unwrap_or_else(|| room.put(key, Page::new(key))))
                }
                Found::Nothing => None,
            };
            if let Some((policy, limit)) = page.map(|page| page.fields(index)) {
                return (policy.clone(), limit.clone());
            }
        }
        self.buffer.make_room(FIELDS);
        let policy = draft11::policy(&mut self.buffer, decision.name(), decision.quota());
        (policy, draft11::limit(&mut self.buffer, decision))
    }

    /// The buffer, with room for a refusal.
    pub(in crate::layer::response) fn buffer(&mut self) -> &mut Buffer {
        self.buffer.make_room(REFUSAL);
        &mut self.buffer
    }

    /// A refusal that is not in the shared table. `render` renders it unless it is found.
    pub(in crate::layer::response) fn refusal(
        &mut self,
        key: RefusalKey,
        render: impl Fn(&mut Buffer) -> Response<Bytes>,
    ) -> Response<Bytes> {
        let response = match self.refusals.find(key.hash(), &key) {
            Found::Text(response) => response,
            Found::Nothing => return render(self.buffer()),
            Found::Room(room) => {
                let render = || render(&mut Buffer::with_room(REFUSAL));
                let shared = REFUSALS.add(key.hash(), key, || leaked(render()));
                shared.unwrap_or_else(|| room.put(key, render()))
            }
        };
        response.clone()
    }
}

/// What the texts of a refusal depend on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::layer::response) struct RefusalKey {
    pub(in crate::layer::response) limit: Limit,
    /// Whether it is an endpoint's own limit.
    pub(in crate::layer::response) is_own: bool,
    pub(in crate::layer::response) seconds: u64,
    /// The value of `Retry-After`: `seconds`, capped.
    pub(in crate::layer::response) retry_after: u64,
    /// Whether it has the `RateLimit` fields.
    pub(in crate::layer::response) with_fields: bool,
}

impl RefusalKey {
    #[inline]
    fn hash(&self) -> usize {
        // Refusals of one quota have places in a row.
        #[expect(clippy::cast_possible_truncation, reason = "the lowest bits suffice")]
        let seconds = self.seconds as usize;
        hash(self.limit.name(), self.limit.quota()).wrapping_add(seconds)
    }
}

/// The same refusal with texts in memory that is never freed.
fn leaked(mut refusal: Response<Bytes>) -> Response<Bytes> {
    let length = refusal.headers().values().map(HeaderValue::len).sum::<usize>();
    let mut leaked = Leaked::with_room(refusal.body().len() + length);
    for value in refusal.headers_mut().values_mut() {
        *value = leaked.value(value);
    }
    refusal.map(|body| leaked.text(&body))
}

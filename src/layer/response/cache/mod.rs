//! The texts of responses that are rendered once and used again.
//!
//! Policies and limiters know no header fields. So the texts of a response are found by the
//! endpoint and the quota of the decision, and are rendered when they are first needed. A text is
//! looked for in two tables:
//!
//! 1. One that all threads share. Nothing in it is ever freed, so its texts have no reference
//!    counts, which each request would write, whatever core it runs on.
//! 2. One of the thread. A text in it makes room for another one when it is no longer in use.
//!
//! So the first policies of a process are served by the shared tables, and the policies in use by
//! those of the threads, however many policies there have been. A text that is in neither table is
//! written to the thread's [`Buffer`](super::buffer::Buffer). That takes longer, but it allocates
//! nothing either.
//!
//! The shared tables take at most 6 MB. The tables and the buffer of a thread take at most 512 KiB.

mod own;
mod page;
mod shared;
mod texts;

pub(super) use texts::{RefusalKey, shared_fields, shared_refusal, with};

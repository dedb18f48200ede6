//! Who is told of what, and in which order.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Tells events to listeners: to each of them all that are noted from when it comes, in the order
/// in which they are noted, one at a time. A listener may do with the store what it likes: it is
/// called without any lock.
pub(super) struct Listeners<E>(Mutex<Board<E>>);

struct Board<E> {
    /// In the order in which they have come.
    listeners: Vec<Listener<E>>,
    standing: Standing<E>,
    /// What has not been told yet, and to whom it is to be.
    untold: VecDeque<(E, Range<usize>)>,
    /// Whether somebody is at it.
    telling: bool,
}

type Listener<E> = Arc<dyn Fn(&E) + Send + Sync>;

/// What has begun and has not ended, by the number of what it is about: whoever comes is told of
/// it.
pub(super) type Standing<E> = BTreeMap<u64, E>;

impl<E: Clone> Listeners<E> {
    pub(super) fn add(&self, listener: impl Fn(&E) + Send + Sync + 'static) {
        let mut board = self.board();
        let place = board.listeners.len();
        board.listeners.push(Arc::new(listener));
        let Board { standing, untold, .. } = &mut *board;
        untold.extend(standing.values().map(|event| (event.clone(), place..place + 1)));
        drop(board);
        self.tell();
    }

    /// Changes what stands. What this comes to is told by [`tell`](Self::tell), when the caller
    /// holds no lock any more.
    pub(super) fn note(&self, change: impl FnOnce(&mut Standing<E>) -> Option<E>) {
        let mut board = self.board();
        if let Some(event) = change(&mut board.standing) {
            let everybody = 0..board.listeners.len();
            board.untold.push_back((event, everybody));
        }
    }

    /// Tells what has been noted, unless somebody is telling: then he does.
    pub(super) fn tell(&self) {
        let mut board = self.board();
        if mem::replace(&mut board.telling, true) {
            return;
        }
        while let Some((event, whom)) = board.untold.pop_front() {
            let listeners = board.listeners[whom].to_vec();
            drop(board);
            for listener in listeners {
                undisturbed(|| listener(&event));
            }
            board = self.board();
        }
        board.telling = false;
    }
}

impl<E> Listeners<E> {
    fn board(&self) -> MutexGuard<'_, Board<E>> {
        // As good after a panic as before: nothing in it is changed in two steps that belong
        // together.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<E> Default for Listeners<E> {
    fn default() -> Self {
        let untold = VecDeque::new();
        Self(Mutex::new(Board {
            listeners: Vec::new(),
            standing: BTreeMap::new(),
            untold,
            telling: false,
        }))
    }
}

/// `eprintln!` panics when nobody reads any more. That is nothing to a store, nor to the request
/// that has found out.
pub(super) fn undisturbed(listen: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(listen));
}

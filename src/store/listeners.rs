//! Delivers events to listeners, in order.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Delivers events to listeners. Each listener gets all events that are queued after it was added,
/// one at a time, in the order in which they were queued. No lock is held while a listener runs, so
/// it may call the store.
pub(super) struct Listeners<E>(Mutex<Board<E>>);

struct Board<E> {
    /// In the order in which they were added.
    listeners: Vec<Listener<E>>,
    standing: Standing<E>,
    /// The events that are not delivered yet, each with the indices of the listeners that get it.
    untold: VecDeque<(E, Range<usize>)>,
    /// Whether a thread is delivering events.
    telling: bool,
}

type Listener<E> = Arc<dyn Fn(&E) + Send + Sync>;

/// The events whose state still lasts (the store is lost, the cap is reached), by the number of the
/// store or the cap. A new listener gets them at once.
pub(super) type Standing<E> = BTreeMap<u64, E>;

impl<E: Clone> Listeners<E> {
    pub(super) fn add(&self, listener: impl Fn(&E) + Send + Sync + 'static) {
        let mut board = self.board();
        let place = board.listeners.len();
        board.listeners.push(Arc::new(listener));
        let Board { standing, untold, .. } = &mut *board;
        untold.extend(standing.values().map(|event| (event.clone(), place..place + 1)));
        drop(board);
        self.deliver();
    }

    /// Changes the lasting events, and queues the event that `change` returns for all listeners.
    /// Call [`deliver`](Self::deliver) afterwards, when no lock is held any more, to deliver it.
    pub(super) fn note(&self, change: impl FnOnce(&mut Standing<E>) -> Option<E>) {
        let mut board = self.board();
        if let Some(event) = change(&mut board.standing) {
            let everybody = 0..board.listeners.len();
            board.untold.push_back((event, everybody));
        }
    }

    /// Delivers the queued events. If another thread is delivering already, that thread delivers
    /// them too.
    pub(super) fn deliver(&self) {
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
        // A panic leaves the board valid: no change of it takes two steps that belong together.
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

/// Runs `listen` and catches its panic. A listener's panic, such as that of `eprintln!` when
/// standard error is closed, must not harm the store or the request that noticed the change.
pub(super) fn undisturbed(listen: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(listen));
}

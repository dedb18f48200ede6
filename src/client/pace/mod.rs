//! Sends requests when their turn has come.
//!
//! ```text
//! request -> endpoint -> lane -> unit? -> inner service -> response -> what does it say? -> lane
//!                                wait ↺
//! ```

mod bucket;
mod drive;
mod error;
mod future;
mod lane;
mod layer;
mod pacer;
mod queue;
mod service;
mod settings;
mod state;

pub use error::{PacerError, WaitError};
pub use future::PaceFuture;
pub use layer::PaceLayer;
pub use pacer::{Pacer, PacerBuilder};
pub use service::Pace;

//! What the fuzz target measures the classifier against. Nothing here calls or repeats the
//! classifier's own code.

pub mod cost;
pub mod servers;
pub mod spelling;

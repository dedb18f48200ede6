//! The models that the fuzz target compares the classifier with. Nothing here calls or repeats the
//! classifier's own code.

pub mod cost;
pub mod servers;
pub mod spelling;

//! Units that are given back or charged afterwards, and requests in flight.

mod against_model;
mod model;

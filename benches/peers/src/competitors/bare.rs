use tower::service_fn;

use crate::calls::{Limit, inner};
use crate::runner::Runner;

pub fn runner(_: Limit) -> Box<dyn Runner> {
    Box::new(service_fn(inner))
}

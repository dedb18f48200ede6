//! What observers are told about one request.

use std::time::Duration;

use crate::store::StoreError;
use crate::values::{Principal, Ruling};

/// What was decided about one request, and whose it is.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Observation<'a> {
    /// Who is billed. `None` if the request is unidentified.
    ///
    /// Do not use it as a metric's label: there are as many principals as there are customers.
    pub principal: Option<&'a Principal>,
    /// What was decided, and what comes of it.
    pub ruling: &'a Ruling,
    /// Why the store could not be asked, if that is the [outcome](Ruling::outcome).
    pub error: Option<&'a StoreError>,
    /// How long the store took. `None` if it answered at once, as one in this process always does.
    pub waited: Option<Duration>,
}

impl<'a> Observation<'a> {
    #[inline]
    pub(crate) const fn new(
        principal: Option<&'a Principal>,
        ruling: &'a Ruling,
        error: Option<&'a StoreError>,
        waited: Option<Duration>,
    ) -> Self {
        Self { principal, ruling, error, waited }
    }
}

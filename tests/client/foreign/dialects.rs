//! What servers say about their limits.

use std::time::{Duration, SystemTime};

use super::{MILLISECOND, Nanos, SECOND};

/// What a server says, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dialect {
    pub(super) retry_after: RetryAfter,
    pub(super) fields: Fields,
    /// Whether `fields` are on all responses, and not on refusals only.
    pub(super) on_all: bool,
    pub(super) honesty: Honesty,
}

/// `Retry-After`, which is on refusals only.
#[derive(Clone, Copy, Debug)]
pub(super) enum RetryAfter {
    None,
    Seconds(Rounding),
    /// Always the same text.
    Says(&'static str),
    /// Seconds with a fraction.
    Fraction,
    /// A date, of whole seconds.
    Date(Rounding),
    /// `retry-after-ms`.
    Millis,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Fields {
    None,
    /// `X-RateLimit-Limit`, `-Remaining` and `-Reset`, in seconds from now.
    Left(Rounding),
    /// The same with the Unix time in seconds.
    Unix(Rounding),
    Draft6,
    Draft7,
    Draft8,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Rounding {
    Down,
    Nearest,
    Up,
}

/// What is wrong with the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Honesty {
    Honest,
    /// All times are so many seconds too long.
    Off(i64),
    /// All times are this text.
    Absurd(&'static str),
    /// All units are always left.
    AlwaysFull,
}

/// What the limiter knows when it answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub(super) is_admitted: bool,
    /// The server's time, since 1970.
    pub(super) now: Nanos,
    /// How long it will be until a request is admitted.
    pub(super) wait: Nanos,
    pub(super) remaining: u64,
    /// How long it will be until all of the limit is there.
    pub(super) reset: Nanos,
    /// The limit: requests, and their time.
    pub(super) quota: (u64, Nanos),
}

pub(super) type Field = (&'static str, String);

impl Dialect {
    pub(super) const SILENT: Self = Self {
        retry_after: RetryAfter::None,
        fields: Fields::None,
        on_all: false,
        honesty: Honesty::Honest,
    };

    pub(super) fn render(self, standing: Standing) -> Vec<Field> {
        let mut fields = vec![("date", date(standing.now / SECOND))];
        if !standing.is_admitted {
            fields.extend(self.retry_after(standing));
        }
        if self.on_all || !standing.is_admitted {
            self.standing(standing, &mut fields);
        }
        fields
    }

    fn retry_after(self, Standing { now, wait, .. }: Standing) -> Option<Field> {
        let text = match self.retry_after {
            RetryAfter::None => return None,
            RetryAfter::Seconds(rounding) => self.time(rounding.seconds(wait)),
            RetryAfter::Says(text) => text.to_owned(),
            RetryAfter::Fraction => {
                let millis = wait.div_ceil(MILLISECOND);
                format!("{}.{:03}", self.time(millis / 1000), millis % 1000)
            }
            RetryAfter::Date(rounding) => date(self.honest(rounding.seconds(now + wait))),
            RetryAfter::Millis => {
                return Some(("retry-after-ms", wait.div_ceil(MILLISECOND).to_string()));
            }
        };
        Some(("retry-after", text))
    }

    fn standing(self, standing: Standing, fields: &mut Vec<Field>) {
        let Standing { now, reset, quota: (limit, window), .. } = standing;
        let is_full = self.honesty == Honesty::AlwaysFull;
        let remaining = if is_full { limit } else { standing.remaining };
        let window = window.div_ceil(SECOND);
        let left = || self.time(reset.div_ceil(SECOND));
        match self.fields {
            Fields::None => {}
            Fields::Left(rounding) | Fields::Unix(rounding) => {
                let is_unix = matches!(self.fields, Fields::Unix(_));
                let reset = if is_unix { now + reset } else { reset };
                fields.extend([
                    ("x-ratelimit-limit", limit.to_string()),
                    ("x-ratelimit-remaining", remaining.to_string()),
                    ("x-ratelimit-reset", self.time(rounding.seconds(reset))),
                ]);
            }
            Fields::Draft6 => fields.extend([
                ("ratelimit-limit", limit.to_string()),
                ("ratelimit-remaining", remaining.to_string()),
                ("ratelimit-reset", left()),
                ("ratelimit-policy", format!("{limit};w={window}")),
            ]),
            Fields::Draft7 => fields.extend([
                ("ratelimit", format!("limit={limit}, remaining={remaining}, reset={}", left())),
                ("ratelimit-policy", format!("{limit};w={window}")),
            ]),
            Fields::Draft8 => fields.extend([
                ("ratelimit", format!("\"{limit}-in-{window}sec\"; r={remaining}; t={}", left())),
                (
                    "ratelimit-policy",
                    format!("\"{limit}-in-{window}sec\"; q={limit}; w={window}; pk=:aGVsbG8=:"),
                ),
            ]),
        }
    }

    fn honest(self, seconds: u64) -> u64 {
        match self.honesty {
            Honesty::Off(seconds_off) => seconds.saturating_add_signed(seconds_off),
            _ => seconds,
        }
    }

    fn time(self, seconds: u64) -> String {
        match self.honesty {
            Honesty::Absurd(text) => text.to_owned(),
            _ => self.honest(seconds).to_string(),
        }
    }
}

impl Rounding {
    fn seconds(self, time: Nanos) -> u64 {
        match self {
            Self::Down => time / SECOND,
            Self::Nearest => (time + SECOND / 2) / SECOND,
            Self::Up => time.div_ceil(SECOND),
        }
    }
}

fn date(seconds: u64) -> String {
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

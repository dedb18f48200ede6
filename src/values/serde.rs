//! How the values are serialized with `serde`, and read back.

use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::excerpt::Excerpt;
use super::{
    Decision, Decisions, Endpoint, Enforcement, Id, Kind, LimitName, Outcome, Principal, Quota,
    Ruling,
};

/// As its text.
macro_rules! as_text {
    ($($value:ty),+) => {$(
        impl Serialize for $value {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_ref())
            }
        }
    )+};
}

as_text!(Endpoint, LimitName, Kind, Id);

/// From a name that the process knows: names are kept for its life, and a text from outside must
/// not use them up.
macro_rules! from_known_name {
    ($($value:ty: $rule:literal),+) => {$(
        impl<'de> Deserialize<'de> for $value {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let name = String::deserialize(deserializer)?;
                let unknown = || {
                    let name = Excerpt::of(&name);
                    D::Error::custom(format_args!(concat!("{:?}: ", $rule), name))
                };
                Self::known(&name).ok_or_else(unknown)
            }
        }
    )+};
}

from_known_name!(
    Endpoint: "no endpoint of that name is known; a policy or `Endpoint::new` makes it known",
    LimitName: "no limit of that name is known; a policy or `LimitName::new` makes it known",
    Kind: "no kind of that name is known; `Kind::new` makes it known"
);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Serialized as the percentage, a number from 0 to 100.
impl Serialize for Enforcement {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.as_percent())
    }
}

impl<'de> Deserialize<'de> for Enforcement {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::percent(u8::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// `{"kind": "user", "id": "u-17"}`
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct PlainPrincipal {
    kind: Kind,
    id: Id,
}

impl Serialize for Principal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        PlainPrincipal { kind: self.kind(), id: self.id().clone() }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Principal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let PlainPrincipal { kind, id } = PlainPrincipal::deserialize(deserializer)?;
        Self::new(kind, &id).ok_or_else(|| D::Error::custom(super::EmptyId))
    }
}

/// `{"limit": 500, "period": {"secs": 60, "nanos": 0}, "burst": 500}`, or
/// `{"limit": 10, "concurrent": true}`. When it is read, the burst can be left out and defaults to
/// the limit. Formats that are not for humans may find fields by their places, so all four are
/// written there.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct PlainQuota {
    limit: u32,
    #[serde(default)]
    period: Option<std::time::Duration>,
    #[serde(default)]
    burst: Option<u32>,
    #[serde(default)]
    concurrent: bool,
}

impl Serialize for Quota {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (limit, concurrent) = (self.limit(), self.is_concurrent());
        let (period, burst) = (self.period(), self.burst());
        let timed = (!concurrent).then_some((period, burst)).unzip();
        if !serializer.is_human_readable() {
            return PlainQuota { limit, period: timed.0, burst: timed.1, concurrent }
                .serialize(serializer);
        }
        let mut fields = serializer.serialize_struct("Quota", if concurrent { 2 } else { 3 })?;
        fields.serialize_field("limit", &limit)?;
        if concurrent {
            fields.serialize_field("concurrent", &true)?;
        } else {
            fields.serialize_field("period", &period)?;
            fields.serialize_field("burst", &burst)?;
        }
        fields.end()
    }
}

impl<'de> Deserialize<'de> for Quota {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let PlainQuota { limit, period, burst, concurrent } =
            PlainQuota::deserialize(deserializer)?;
        let quota = match period {
            Some(period) if !concurrent => Self::per(limit, period),
            None if concurrent => Self::concurrent(limit),
            None => return Err(D::Error::missing_field("period")),
            Some(_) => {
                return Err(D::Error::custom("a limit of requests in flight has no `period`"));
            }
        };
        burst.map_or(quota, |burst| quota.burst(burst)).build().map_err(D::Error::custom)
    }
}

/// For status pages and the like: what it says, field by field. It can't be read back.
impl Serialize for Decision {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Decision", 9)?;
        fields.serialize_field("limit", &self.name())?;
        fields.serialize_field("scope", &self.limit().scope())?;
        fields.serialize_field("quota", &self.quota())?;
        fields.serialize_field("allowed", &self.is_allowed())?;
        fields.serialize_field("blocked", &self.is_blocked())?;
        fields.serialize_field("cost", &self.cost())?;
        fields.serialize_field("remaining", &self.remaining())?;
        fields.serialize_field("retry_after", &self.retry_after())?;
        fields.serialize_field("reset", &self.reset())?;
        fields.end()
    }
}

/// For status pages and the like: what it says, field by field. It can't be read back.
impl Serialize for Ruling {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let outcome: Outcome = self.outcome();
        let mut fields = serializer.serialize_struct("Ruling", 6)?;
        fields.serialize_field("outcome", &outcome)?;
        fields.serialize_field("enforced", &self.is_enforced())?;
        fields.serialize_field("admitted", &self.is_admitted())?;
        fields.serialize_field("endpoint", &self.endpoint())?;
        fields.serialize_field("decisions", self.decisions())?;
        let candidate = self.candidate().map(Decisions::as_slice);
        fields.serialize_field("candidate", &candidate)?;
        fields.end()
    }
}

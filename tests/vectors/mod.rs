//! The test vectors, read from their files.
#![allow(dead_code, reason = "not every test crate reads all of them")]

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

pub(crate) mod charges;
pub(crate) mod servers;

pub(crate) fn read<T: DeserializeOwned>(file: &str) -> T {
    let path = format!("{}/tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

pub(crate) fn gcra() -> Vec<GcraVector> {
    let Gcra { vectors } = read("gcra.json");
    assert!(!vectors.is_empty());
    vectors
}

#[derive(Deserialize)]
struct Gcra {
    vectors: Vec<GcraVector>,
}

#[derive(Deserialize)]
pub(crate) struct GcraVector {
    pub(crate) id: String,
    pub(crate) policy: GcraPolicy,
    pub(crate) requests: Vec<GcraRequest>,
}

#[derive(Deserialize)]
pub(crate) struct GcraPolicy {
    pub(crate) name: String,
    pub(crate) limit: u32,
    pub(crate) period_ns: u64,
    pub(crate) burst: u32,
    #[serde(rename = "T_ns")]
    pub(crate) interval_ns: u64,
    pub(crate) burst_span_ns: u64,
}

#[derive(Deserialize)]
pub(crate) struct GcraRequest {
    pub(crate) t_ns: u64,
    pub(crate) repeat_index: Option<u32>,
    pub(crate) allowed: bool,
    pub(crate) remaining: u32,
    pub(crate) retry_after_ns: u64,
    pub(crate) next_unit_ns: u64,
    pub(crate) reset_full_ns: u64,
    pub(crate) tat_after_ns: u64,
    pub(crate) headers: BTreeMap<String, String>,
}

impl GcraVector {
    /// All requests. A run of identical requests has only its first and last row in the file; the
    /// requests between them are added, without an expected outcome.
    pub(crate) fn unfolded(&self) -> impl Iterator<Item = (u64, Option<&GcraRequest>)> {
        let mut sent = 0;
        self.requests.iter().flat_map(move |row| {
            let left_out = match row.repeat_index {
                Some(0) => {
                    sent = 1;
                    0
                }
                Some(index) => index - std::mem::replace(&mut sent, index + 1),
                None => 0,
            };
            (0..left_out).map(|_| (row.t_ns, None)).chain([(row.t_ns, Some(row))])
        })
    }
}

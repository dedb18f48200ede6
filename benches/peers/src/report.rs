//! The figures of one case, and how they are printed.

use std::fmt;

use crate::competitors::{Competitor, Kind};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Admit,
    Refuse,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    OneHotBucket,
    ManyBuckets,
}

#[derive(Clone, Copy)]
pub struct Case {
    pub verdict: Verdict,
    pub spread: Spread,
    pub threads: usize,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.verdict {
            Verdict::Admit => "admit",
            Verdict::Refuse => "refuse",
        })?;
        f.write_str(match self.spread {
            Spread::OneHotBucket => ", one hot bucket",
            Spread::ManyBuckets => ", 100,000 buckets",
        })?;
        f.write_str(if self.threads == 1 { ", one thread" } else { ", two threads" })
    }
}

pub struct Figures {
    pub case: Case,
    /// Nanoseconds a call of the service that nobody limits.
    pub bare: f64,
    pub rows: Vec<Row>,
}

pub struct Row {
    pub name: String,
    pub kind: Kind,
    pub over_bare: f64,
}

impl Figures {
    /// `times` are those of the competitors, of which one is the bare service.
    pub fn new(case: Case, competitors: &[Competitor], times: &[f64]) -> Self {
        let timed = || competitors.iter().zip(times);
        let bare = timed()
            .find(|(competitor, _)| competitor.kind == Kind::Bare)
            .map_or(0.0, |(_, time)| *time);
        let rows = timed()
            .filter(|(competitor, _)| competitor.kind != Kind::Bare)
            .map(|(Competitor { name, kind, .. }, time)| Row {
                name: name.clone(),
                kind: *kind,
                over_bare: time - bare,
            })
            .collect();
        Self { case, bare, rows }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let case = self.case.to_string();
        let reference = self
            .rows
            .iter()
            .find(|row| row.kind == Kind::Reference)
            .map_or(f64::NAN, |row| row.over_bare);
        writeln!(f, "### {}{}\n", case[..1].to_uppercase(), &case[1..])?;
        writeln!(f, "The bare service takes {:.0} ns.\n", self.bare)?;
        writeln!(f, "| competitor | ns over bare | ratio to ours with headers |")?;
        writeln!(f, "|---|--:|--:|")?;
        for row in &self.rows {
            writeln!(
                f,
                "| {} | {:.0} | {:.2} |",
                row.name,
                row.over_bare,
                row.over_bare / reference
            )?;
        }
        Ok(())
    }
}

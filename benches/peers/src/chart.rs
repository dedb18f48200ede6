//! The picture: what an admission and a refusal cost, on a logarithmic scale.

use std::fmt::Write;

use crate::COMMAND;
use crate::competitors::Kind;
use crate::machine::Machine;
use crate::report::{Figures, Row, Verdict};
use crate::rounds::BATCH;

const WIDTH: f64 = 990.0;
const MARGIN: f64 = 24.0;
/// Where the names end and the bars begin.
const NAMES: f64 = 300.0;
const PANEL: f64 = 320.0;
const GAP: f64 = 26.0;
/// The longest bar: what is left of the panel is for its figure.
const LONGEST: f64 = 262.0;
const TOP: f64 = 122.0;
const ROW: f64 = 30.0;
const BAR: f64 = 18.0;
const LINE: f64 = 19.0;
/// From the middle of a line of text to its foot. Not every renderer knows how to centre text on a
/// height.
const FOOT: f64 = 4.5;

/// `figures` are those of the cases that are drawn, one panel each, with the same competitors in
/// each.
pub fn draw(figures: &[Figures], machine: &Machine, rounds: usize) -> String {
    let rows = figures.first().map_or(0, |figures| figures.rows.len());
    let bottom = TOP + ROW * rows as f64;
    let taken = format!("Medians of {rounds} interleaved rounds of {BATCH} calls. {machine}.");
    let caveat = machine.caveat().map(|caveat| ("note", caveat));
    let notes: Vec<_> =
        caveat.into_iter().chain([("note", taken.as_str()), ("note code", COMMAND)]).collect();
    let height = bottom + LINE * (notes.len() as f64 + 2.0);
    let scale =
        Scale::of(figures.iter().flat_map(|figures| &figures.rows).map(|row| row.over_bare));

    let mut svg = Svg::new(height);
    svg.text(MARGIN, 40.0, "title", "What a rate limiter adds to a call");
    let unit = "Nanoseconds over the bare service, one thread, one hot bucket. Logarithmic scale; shorter is better.";
    svg.text(MARGIN, 62.0, "note", unit);
    if let Some(first) = figures.first() {
        for (nth, row) in first.rows.iter().enumerate() {
            svg.text(NAMES - 12.0, middle(nth) + FOOT, class("name", row.kind), &row.name);
        }
    }
    for (nth, figures) in figures.iter().enumerate() {
        let left = NAMES + (PANEL + GAP) * nth as f64;
        panel(&mut svg, left, bottom, figures, &scale);
    }
    for (nth, (class, note)) in notes.iter().enumerate() {
        svg.text(MARGIN, bottom + LINE * (nth as f64 + 2.0), class, note);
    }
    svg.finish()
}

fn panel(svg: &mut Svg, left: f64, bottom: f64, figures: &Figures, scale: &Scale) {
    let heading = match figures.case.verdict {
        Verdict::Admit => "Admit",
        Verdict::Refuse => "Refuse",
    };
    svg.text(left, TOP - 26.0, "panel", heading);
    for value in scale.marks() {
        let x = left + scale.length(value);
        svg.line(x, TOP - 2.0, bottom);
        svg.text(x, TOP - 8.0, "mark", &nanos(value));
    }
    for (nth, Row { kind, over_bare, .. }) in figures.rows.iter().enumerate() {
        let length = scale.length(*over_bare);
        svg.bar(left, middle(nth) - BAR / 2.0, length, class("bar", *kind));
        svg.text(
            left + length + 6.0,
            middle(nth) + FOOT,
            class("value", *kind),
            &nanos(*over_bare),
        );
    }
}

fn middle(row: usize) -> f64 {
    TOP + ROW * (row as f64 + 0.5)
}

fn class(what: &'static str, kind: Kind) -> &'static str {
    match (what, kind) {
        ("bar", Kind::Reference | Kind::Ours) => "bar ours",
        ("name", Kind::Reference | Kind::Ours) => "name ours",
        ("value", Kind::Reference | Kind::Ours) => "value ours",
        _ => what,
    }
}

/// Whole nanoseconds, with a comma between thousands.
fn nanos(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth) % 3 == 0 && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// From half of the least value, so that it has a bar too, to the greatest.
struct Scale {
    least: f64,
    greatest: f64,
}

impl Scale {
    fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let greatest = values.clone().fold(10.0, f64::max);
        Self { least: (values.fold(greatest, f64::min) / 2.0).max(1.0), greatest }
    }

    fn length(&self, value: f64) -> f64 {
        LONGEST * ((value.max(self.least) / self.least).ln() / (self.greatest / self.least).ln())
    }

    fn marks(&self) -> impl Iterator<Item = f64> {
        let inside = self.least..=self.greatest;
        (0..9).map(|power| 10_f64.powi(power)).filter(move |value| inside.contains(value))
    }
}

struct Svg(String);

const STYLE: &str = "\
    text { font-family: system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; font-size: 13px; \
    fill: #3d444d }\n\
    .title { font-size: 19px; font-weight: 600; fill: #1f2328 }\n\
    .panel { font-size: 14px; font-weight: 600; fill: #1f2328 }\n\
    .note { font-size: 12px; fill: #59636e }\n\
    .code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: 11px }\n\
    .name { text-anchor: end }\n\
    .mark { font-size: 11px; fill: #818b98; text-anchor: middle }\n\
    .ours { font-weight: 600; fill: #0a5fc4 }\n\
    line { stroke: #d9dee4; stroke-width: 1 }\n\
    .bar { fill: #a9b4c0 }\n\
    .bar.ours { fill: #1f7aec }\n";

impl Svg {
    /// With a background of its own: pages are light or dark.
    fn new(height: f64) -> Self {
        let mut svg = Self(String::new());
        svg.push(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             height=\"{height}\" role=\"img\" aria-label=\"What rate limiters add to a call\">\n\
             <style>\n{STYLE}</style>\n\
             <rect x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"8\" fill=\"#ffffff\" stroke=\"#d1d9e0\"/>\n",
            WIDTH - 1.0,
            height - 1.0
        ));
        svg
    }

    fn text(&mut self, x: f64, y: f64, class: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        self.push(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{text}</text>\n"
        ));
    }

    fn line(&mut self, x: f64, top: f64, bottom: f64) {
        self.push(format_args!(
            "<line x1=\"{x:.1}\" y1=\"{top:.1}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\"/>\n"
        ));
    }

    fn bar(&mut self, x: f64, y: f64, length: f64, class: &str) {
        self.push(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{BAR}\" rx=\"2\" class=\"{class}\"/>\n"
        ));
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        self.0.write_fmt(text).expect("a String takes everything");
    }

    fn finish(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}

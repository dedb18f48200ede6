//! The picture: how long each call of the well-behaved caller took, without the limiter and with
//! it.
#![expect(clippy::float_arithmetic, reason = "positions in a picture")]

use std::fmt::Write;
use std::time::Duration;

use super::{ATTACK, RUN, Seen};

const WIDTH: f64 = 920.0;
const HEIGHT: f64 = 372.0;
const PANEL: f64 = 364.0;
const LEFT: [f64; 2] = [84.0, 530.0];
/// Where the panels begin and end.
const TOP: f64 = 116.0;
const BOTTOM: f64 = 290.0;
/// The times at the two ends of the scale, in milliseconds.
const SCALE: [f64; 2] = [2.0, 1000.0];
const MARKS: [(f64, &str); 3] = [(10.0, "10 ms"), (100.0, "100 ms"), (1000.0, "1 s")];

const STYLE: &str = "\
text { font: 14px system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #3d444d }
.title { font-size: 19px; font-weight: 600; fill: #1f2328 }
.panel { font-size: 16px; font-weight: 600; fill: #1f2328 }
.figure { font-weight: 600 }
.before { fill: #b42318 }
.after { fill: #0a5fc4 }
.mark { font-size: 12px; fill: #59636e }
.end { text-anchor: end }
.middle { text-anchor: middle }
line { stroke: #d9dee4 }";

pub(crate) fn draw(without: &Seen, with: &Seen) -> String {
    let mut svg = String::new();
    let picture = &mut svg;
    let title = "How long a well-behaved caller waits while another one attacks";
    line(
        picture,
        &format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
         aria-label=\"{title}\">\n<style>\n{STYLE}\n</style>\n<rect x=\"0.5\" y=\"0.5\" width=\"{}\" \
         height=\"{}\" rx=\"8\" fill=\"#ffffff\" stroke=\"#d1d9e0\"/>",
            WIDTH - 1.0,
            HEIGHT - 1.0
        ),
    );
    text(picture, 24.0, 38.0, "title", title);
    let note = "Each dot is one of its calls: when it was made, and how long it took. The attack: up to \
                4,000 calls a second.";
    text(picture, 24.0, 62.0, "", note);
    panel(picture, LEFT[0], "Without a limiter", "before", without);
    panel(picture, LEFT[1], "With bolna-rate-limit", "after", with);
    line(picture, "</svg>");
    svg
}

fn panel(picture: &mut String, left: f64, name: &str, class: &str, seen: &Seen) {
    let x = |time: Duration| left + PANEL * time.as_secs_f64() / RUN.as_secs_f64();
    let [begin, end] = ATTACK.map(x);
    text(picture, left, TOP - 20.0, "panel", name);
    line(
        picture,
        &format!(
            "<rect x=\"{begin}\" y=\"{TOP}\" width=\"{}\" height=\"{}\" fill=\"#f4efe6\"/>",
            end - begin,
            BOTTOM - TOP
        ),
    );
    for (time, mark) in MARKS {
        let y = y(time);
        line(
            picture,
            &format!("<line x1=\"{left}\" y1=\"{y:.1}\" x2=\"{}\" y2=\"{y:.1}\"/>", left + PANEL),
        );
        text(picture, left - 8.0, y + 4.0, "mark end", mark);
    }
    let middle = f64::midpoint(begin, end);
    text(picture, middle, BOTTOM - 8.0, "mark middle", "the attack");
    for (time, mark) in [(0, "0 s"), (5, "5"), (10, "10"), (15, "15"), (20, "20 s")] {
        text(picture, x(Duration::from_secs(time)), BOTTOM + 17.0, "mark middle", mark);
    }
    // One path for all dots: a stroke of no length with round ends.
    let mut dots = String::new();
    for (made, took) in &seen.calls {
        let _ = write!(dots, "M{:.1} {:.1}h0", x(*made), y(took.as_secs_f64() * 1000.0));
    }
    let colour = if class == "before" { "#d92d20" } else { "#1f7aec" };
    line(
        picture,
        &format!(
            "<path d=\"{dots}\" stroke=\"{colour}\" stroke-width=\"5\" stroke-linecap=\"round\" \
         stroke-opacity=\"0.7\" fill=\"none\"/>"
        ),
    );
    let times = seen.during_attack();
    let figure = format!("median during the attack: {}", millis(times[times.len() / 2]));
    text(picture, left, BOTTOM + 42.0, &format!("figure {class}"), &figure);
    let [admitted, refused] = seen.attack.map(thousands);
    let attack = format!("the attacker: {admitted} calls admitted, {refused} refused");
    text(picture, left, BOTTOM + 63.0, "", &attack);
}

/// The height of a time in milliseconds, on a logarithmic scale.
fn y(millis: f64) -> f64 {
    let [least, most] = SCALE.map(f64::ln);
    let part = (millis.clamp(SCALE[0], SCALE[1]).ln() - least) / (most - least);
    BOTTOM - (BOTTOM - TOP) * part
}

fn millis(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1000.0)
}

fn thousands(count: usize) -> String {
    if count < 1000 {
        return count.to_string();
    }
    format!("{},{:03}", count / 1000, count % 1000)
}

fn line(picture: &mut String, text: &str) {
    picture.push_str(text);
    picture.push('\n');
}

fn text(picture: &mut String, x: f64, y: f64, class: &str, text: &str) {
    line(picture, &format!("<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{text}</text>"));
}

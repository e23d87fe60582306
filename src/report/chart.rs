//! The four pictures of a head, each an SVG with axes: heat map, errors, values, and float against integer.

use std::fmt::Write as _;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use maud::{Markup, html};

use super::pictures::{ABOVE, BELOW, Drawn, ErrorMap, Histogram, LEVELS, NO_NUMBER, VALUE_BINS, ZERO};

/// Left, top and side of the square in which numbers are drawn.
const LEFT: f64 = 46.0;
const TOP: f64 = 6.0;
const SIDE: f64 = 256.0;
const BOTTOM: f64 = TOP + SIDE;
/// All of a picture.
const VIEW_BOX: &str = "0 0 308 300";

/// What every picture uses: the frame, the marks of values, the diagonal.
pub(super) fn definitions() -> Markup {
    let values = [("-128", 0.5), ("-64", 64.5), ("0", 128.5), ("64", 192.5)];
    html! {
        svg .definitions width="0" height="0" aria-hidden="true" {
            defs {
                g id="frame" { rect .frame x=(LEFT) y=(TOP) width=(SIDE) height=(SIDE) {} }
                g id="values" {
                    @for (text, at) in values {
                        path .tick d={ "M" (LEFT + at) " " (BOTTOM) "v4" } {}
                        text x=(LEFT + at) y=(BOTTOM + 16.0) text-anchor="middle" { (text) }
                    }
                }
                g id="outputs" {
                    @for (text, at) in values {
                        path .tick d={ "M" (LEFT) " " (BOTTOM - at) "h-4" } {}
                        text x=(LEFT - 6.0) y=(BOTTOM - at + 4.0) text-anchor="end" { (text) }
                    }
                    (across("output"))
                }
                g id="diagonal" { path .diagonal d={ "M" (LEFT) " " (BOTTOM) "l256-256" } {} }
            }
        }
    }
}

/// The name of the horizontal axis.
fn along(text: &str) -> Markup {
    html! { text x=(LEFT + SIDE / 2.0) y="297" text-anchor="middle" { (text) } }
}

/// The name of the vertical axis.
fn across(text: &str) -> Markup {
    html! { text transform={ "translate(9 " (TOP + SIDE / 2.0) ")rotate(-90)" } text-anchor="middle" { (text) } }
}

fn image(png: &[u8]) -> Markup {
    let data = BASE64_STANDARD.encode(png);
    html! {
        image .map x=(LEFT) y=(TOP) width=(SIDE) height=(SIDE) preserveAspectRatio="none"
            href={ "data:image/png;base64," (data) } {}
    }
}

fn figure(title: &str, picture: &Markup, caption: &Markup) -> Markup {
    html! {
        figure {
            svg viewBox=(VIEW_BOX) role="img" { title { (title) } (picture) use href="#frame" {} }
            figcaption { (caption) }
        }
    }
}

/// Where the outputs are off: a row a query, a column an element.
pub(super) fn heat_map(map: &ErrorMap) -> Markup {
    let (largest, query, element) = map.worst;
    let title = if largest == 0.0 {
        format!("Error of {} queries by {} elements: none, every output is the rounded truth", map.queries, map.dim)
    } else {
        format!(
            "Error of {} queries by {} elements: {largest} at most, first at query {query}, element {element}",
            map.queries, map.dim
        )
    };
    let picture = html! {
        (image(&map.png()))
        text x=(LEFT) y=(BOTTOM + 16.0) { "0" }
        text x=(LEFT + SIDE) y=(BOTTOM + 16.0) text-anchor="end" { (map.dim - 1) }
        text x=(LEFT - 4.0) y=(TOP + 10.0) text-anchor="end" { "0" }
        text x=(LEFT - 4.0) y=(BOTTOM) text-anchor="end" { (map.queries - 1) }
        (along("element")) (across("query"))
    };
    let caption = html! {
        b { "Error" } ", output − rounded truth. "
        @if largest == 0.0 { "None." } @else { "Largest: " (largest) ", at query " (query) ", element " (element) "." }
        @if map.rows > 1 || map.columns > 1 {
            " A pixel is the largest error of " (map.rows) " × " (map.columns) " (queries × elements)."
        }
    };
    figure(&title, &picture, &caption)
}

/// The colours of heat maps.
pub(super) fn legend() -> Markup {
    let rgb = |[r, g, b]: [u8; 3]| format!("#{r:02x}{g:02x}{b:02x}");
    let mut lowest = 1.0;
    let mut names = Vec::new();
    for most in LEVELS {
        names.push(if most > lowest { format!("{lowest} to {most}") } else { format!("{most}") });
        lowest = most + 1.0;
    }
    names.push(format!("{lowest} or more"));
    let below = BELOW.into_iter().zip(&names).rev().map(|(colour, name)| (colour, format!("−({name})")));
    let below =
        below.map(|(colour, name)| (colour, if name.contains(' ') { name } else { name.replace(['(', ')'], "") }));
    let above = ABOVE.into_iter().zip(&names).map(|(colour, name)| (colour, format!("+{name}")));
    let all = below.chain([(ZERO, "0".to_owned())]).chain(above).chain([(NO_NUMBER, "NaN or infinite".to_owned())]);
    html! {
        ul .legend aria-label="Colours of the heat maps" {
            @for (colour, name) in all {
                li { svg viewBox="0 0 16 16" aria-hidden="true" { rect .map width="16" height="16" fill=(rgb(colour)) {} } (name) }
            }
        }
    }
}

/// How many elements have which error, before the truth is rounded.
pub(super) fn errors(drawn: &Drawn) -> Markup {
    let Histogram { width, counts } = &drawn.errors;
    let outside = drawn.beyond_rounding;
    let reach = width * counts.len() as f64 / 2.0;
    let most = counts.iter().copied().max().unwrap_or(1).max(1);
    let all: u64 = counts.iter().sum();
    // A single element has a height.
    let height =
        |count: u64| if count == 0 { 0.0 } else { SIDE * (count as f64 * 2.0).log10() / (most as f64 * 2.5).log10() };
    let x = |error: f64| LEFT + SIDE * (error + reach) / (2.0 * reach);
    let bar = SIDE / counts.len() as f64;
    let mut bars = String::new();
    for (i, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let height = height(count);
        let left = LEFT + bar * i as f64;
        let _ = write!(bars, "M{left:.1} {BOTTOM}v-{height:.1}h{bar:.1}v{height:.1}z");
    }
    let decades =
        std::iter::successors(Some(1_u64), |decade| decade.checked_mul(10)).take_while(|&decade| decade <= most);
    let title =
        format!("Histogram of the error before the truth is rounded, {all} elements, from {} to {reach} steps", -reach);
    let picture = html! {
        rect .band x={ (format!("{:.1}", x(-0.5))) } y=(TOP) width={ (format!("{:.1}", SIDE / 2.0 / reach)) } height=(SIDE) {}
        path .bars d=(bars) {}
        @for edge in [-0.5, 0.5] { path .edge d={ (format!("M{:.1} {TOP}v{SIDE}", x(edge))) } {} }
        @for decade in decades {
            path .tick d={ "M" (LEFT) (format!(" {:.1}", BOTTOM - height(decade))) "h-4" } {}
            text x=(LEFT - 6.0) y={ (format!("{:.1}", BOTTOM - height(decade) + 4.0)) } text-anchor="end" { (short(decade)) }
        }
        @for error in [-reach, -reach / 2.0, 0.0, reach / 2.0, reach] {
            path .tick d={ "M" (x(error)) " " (BOTTOM) "v4" } {}
            text x=(x(error)) y=(BOTTOM + 16.0) text-anchor="middle" { (error) }
        }
        (along("error in steps")) (across("elements, logarithmic"))
    };
    let caption = html! {
        b { "Error before rounding" } ", output − float truth. Between the dashed lines is what rounding to int8 alone costs, ±0.5; beyond them "
        @if outside == 0 { "there is nothing." } @else { "are " (percent_of(outside, all)) "." }
    };
    figure(&title, &picture, &caption)
}

fn percent_of(part: u64, all: u64) -> String {
    let share = part as f64 / all as f64 * 100.0;
    if share < 0.01 { format!("{part} of {all} elements") } else { format!("{share:.2} % of the elements") }
}

/// 1, 10, 100, 1k, …
fn short(count: u64) -> String {
    match count {
        1_000_000.. => format!("{}M", count / 1_000_000),
        1_000.. => format!("{}k", count / 1_000),
        _ => count.to_string(),
    }
}

/// How outputs and truth are distributed.
pub(super) fn values(drawn: &Drawn) -> Markup {
    let most = drawn.outputs.iter().chain(&drawn.truths).copied().max().unwrap_or(1).max(1) as f64;
    let step = SIDE / VALUE_BINS as f64;
    let outline = |counts: &[u64; VALUE_BINS]| {
        let mut path = format!("M{LEFT} {BOTTOM}");
        let mut before = None;
        for (i, &count) in counts.iter().enumerate() {
            if before != Some(count) {
                let (x, y) = (LEFT + step * i as f64, BOTTOM - SIDE * 0.96 * count as f64 / most);
                let _ = write!(path, "H{x}V{y:.1}");
            }
            before = Some(count);
        }
        let _ = write!(path, "H{}V{BOTTOM}", LEFT + SIDE);
        path
    };
    let picture = html! {
        path .bars d=(outline(&drawn.outputs)) {}
        path .line d=(outline(&drawn.truths)) {}
        text x=(LEFT - 6.0) y=(BOTTOM) text-anchor="end" { "0" }
        text x=(LEFT - 6.0) y=(TOP + SIDE * 0.04 + 4.0) text-anchor="end" { (most) }
        use href="#values" {}
        (along("value in steps")) (across("elements"))
    };
    let caption = html! {
        b { "Values" } ", bins of 4 steps: "
        span .key-bars { "outputs" } " filled, the " span .key-line { "rounded truth" } " as a line."
    };
    figure("Histogram of the outputs and of the rounded truth", &picture, &caption)
}

/// Float against integer.
pub(super) fn scatter(drawn: &Drawn) -> Markup {
    let picture = html! {
        (image(&drawn.density))
        use href="#diagonal" {} use href="#values" {} use href="#outputs" {}
        (along("float truth in steps"))
    };
    let caption = html! {
        b { "Float against integer" } ": the darker or, on a dark page, the lighter, the more elements (logarithmic); 2 × 2 steps a pixel."
    };
    figure(
        "Density of float truth against integer output, beside the diagonal where they are equal",
        &picture,
        &caption,
    )
}

/// The four pictures of a head.
pub(super) fn of_head(map: &ErrorMap, drawn: &Drawn) -> Markup {
    html! { div .figures { (heat_map(map)) (errors(drawn)) (values(drawn)) (scatter(drawn)) } }
}

/// Of many heads together, and how they compare by their mean errors.
pub(super) fn of_all(drawn: &Drawn, mean_errors: Vec<f64>) -> Markup {
    html! { div .figures { (heads(mean_errors)) (errors(drawn)) (values(drawn)) (scatter(drawn)) } }
}

/// The mean error of every head, the largest one first.
fn heads(mut mean_errors: Vec<f64>) -> Markup {
    mean_errors.sort_by(|a, b| b.total_cmp(a));
    let most = mean_errors.iter().copied().filter(|x| x.is_finite()).fold(0.0, f64::max);
    let bar = SIDE / mean_errors.len() as f64;
    let mut bars = String::new();
    for (i, mean) in mean_errors.iter().enumerate().filter(|(_, mean)| **mean > 0.0) {
        let (left, height) = (LEFT + bar * i as f64, SIDE * 0.96 * (mean / most).min(1.0));
        let _ = write!(bars, "M{left:.1} {BOTTOM}v-{height:.1}h{bar:.1}v{height:.1}z");
    }
    let count = mean_errors.len();
    let picture = html! {
        path .bars d=(bars) {}
        text x=(LEFT - 4.0) y=(BOTTOM) text-anchor="end" { "0" }
        text x=(LEFT - 4.0) y=(TOP + SIDE * 0.04 + 4.0) text-anchor="end" { (format!("{most:.3}")) }
        text x=(LEFT) y=(BOTTOM + 16.0) { "1" }
        text x=(LEFT + SIDE) y=(BOTTOM + 16.0) text-anchor="end" { (count) }
        (along("head, the worst first"))
    };
    let caption =
        html! { b { "Heads" } ": the mean error of each, output − rounded truth without its sign, in steps." };
    figure(&format!("Mean error of {count} heads, sorted: from {most:.3} steps"), &picture, &caption)
}

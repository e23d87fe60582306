//! The page: verdict, groups, cases, heads, and where it was computed.

use std::cmp::Ordering;

use attn_ref::{Metrics, Tolerance};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{
    Environment, chart,
    pictures::{Badness, CasePictures, Counts, HeadPicture},
};
use crate::{
    suite::{CaseReport, HeadReport, Report},
    table::{correlation, number, percent},
};

const STYLE: &str = include_str!("style.css");

/// So many heads are in the list of the worst ones.
const WORST: usize = 10;
/// So many failures are listed at the top, and so many failing heads of a case are open.
const SHOWN: usize = 20;

/// A validation as a page of HTML; `pictures` has one entry for each case of the report, in its order.
#[must_use]
pub fn page(report: &Report, pictures: &[CasePictures], environment: &Environment) -> String {
    let all = All { report, pictures, columns: columns(report) };
    let verdict = if report.passed { "PASS" } else { "FAIL" };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="generator" content={ "attn " (report.version) };
                // Not even a page that was tampered with runs anything or loads anything.
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'";
                title { (verdict) ": attn validate" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (chart::definitions())
                header {
                    h1 { "Integer attention against float attention" }
                    (all.verdict())
                }
                main {
                    (all.skipped())
                    (all.groups())
                    (all.worst())
                    (how_to_read(all.has_libtorch()))
                    @for group in all.by_group() { (all.group(&group)) }
                }
                footer {
                    section id="environment" {
                        h2 { "Environment" }
                        dl {
                            @for (what, value) in environment.entries(report.version, report.libtorch.as_deref()) {
                                dt { (what) } dd { (value) }
                            }
                        }
                    }
                }
            }
        }
    };
    page.into_string()
}

/// One figure of a head: a column of every table.
struct Column {
    /// Its name in the JSON.
    name: &'static str,
    heading: &'static str,
    title: &'static str,
    value: fn(&HeadReport) -> Option<f64>,
    text: fn(&HeadReport) -> String,
    /// Of two values, whether the first one is worse.
    worse: fn(f64, f64) -> bool,
    limit: fn(&Tolerance) -> Option<Limit>,
}

/// How a figure has to stand to its limit.
struct Limit {
    least: bool,
    text: String,
}

fn least(limit: Option<f64>, text: impl Fn(f64) -> String) -> Option<Limit> {
    limit.map(|limit| Limit { least: true, text: text(limit) })
}

fn most(limit: Option<f64>, text: impl Fn(f64) -> String) -> Option<Limit> {
    limit.map(|limit| Limit { least: false, text: text(limit) })
}

/// A limit in per cent, as it is.
fn share(limit: f64) -> String {
    // 0.997 · 100 is not 99.7 in binary.
    format!("{} %", (limit * 1e6).round() / 1e4)
}

fn less(a: f64, b: f64) -> bool {
    a.total_cmp(&b).is_lt()
}

fn more(a: f64, b: f64) -> bool {
    a.total_cmp(&b).is_gt()
}

/// The columns that a report needs: those about libtorch and about what is not finite only where there is any.
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn columns(report: &Report) -> Vec<Column> {
    const NONE: fn(&Tolerance) -> Option<Limit> = |_| None;
    let metrics: [Column; 8] = [
        Column {
            name: "correlation",
            heading: "Correlation",
            title: "of the output with the rounded truth",
            value: |head| head.metrics.correlation,
            text: |head| correlation(&head.metrics),
            worse: less,
            limit: |tolerance| least(tolerance.min_correlation, |x| x.to_string()),
        },
        Column {
            name: "correlation_loss",
            heading: "Loss",
            title: "of correlation with the truth, beyond what rounding the truth to int8 costs",
            value: |head| Some(head.correlation_loss),
            text: |head| format!("{:.6}", head.correlation_loss),
            worse: more,
            limit: |tolerance| most(tolerance.max_correlation_loss, |x| x.to_string()),
        },
        Column {
            name: "mae",
            heading: "MAE",
            title: "mean absolute error in steps",
            value: |head| Some(head.metrics.mae),
            text: |head| format!("{:.4}", head.metrics.mae),
            worse: more,
            limit: |tolerance| most(tolerance.max_mae, |x| x.to_string()),
        },
        Column {
            name: "rmse",
            heading: "RMSE",
            title: "root of the mean squared error in steps",
            value: |head| Some(head.metrics.rmse),
            text: |head| format!("{:.4}", head.metrics.rmse),
            worse: more,
            limit: NONE,
        },
        Column {
            name: "equal",
            heading: "Equal",
            title: "share of elements that are the rounded truth",
            value: |head| Some(head.metrics.equal),
            text: |head| percent(head.metrics.equal) + " %",
            worse: less,
            limit: NONE,
        },
        Column {
            name: "within_1",
            heading: "Within ±1",
            title: "share of elements with an error of one step at most",
            value: |head| Some(head.metrics.within_1),
            text: |head| percent(head.metrics.within_1) + " %",
            worse: less,
            limit: |tolerance| least(tolerance.min_within_1, share),
        },
        Column {
            name: "within_5",
            heading: "Within ±5",
            title: "share of elements with an error of five steps at most",
            value: |head| Some(head.metrics.within_5),
            text: |head| percent(head.metrics.within_5) + " %",
            worse: less,
            limit: |tolerance| least(tolerance.min_within_5, share),
        },
        Column {
            name: "max_error",
            heading: "Max.",
            title: "largest absolute error in steps",
            value: |head| Some(head.metrics.max_error),
            text: |head| number(head.metrics.max_error),
            worse: more,
            limit: |tolerance| most(tolerance.max_error, |x| x.to_string()),
        },
    ];
    let mut columns = Vec::from(metrics);
    let heads = || report.cases.iter().flat_map(|case| [&case.overall].into_iter().chain(&case.per_head));
    if heads().any(|head| head.metrics.non_finite > 0) {
        columns.push(Column {
            name: "non_finite",
            heading: "Not finite",
            title: "elements that are NaN or infinite, in the output or in the truth",
            value: |head| Some(head.metrics.non_finite as f64),
            text: |head| head.metrics.non_finite.to_string(),
            worse: more,
            limit: |_| most(Some(0.0), |x| x.to_string()),
        });
    }
    if heads().any(|head| head.libtorch.is_some()) {
        columns.push(Column {
            name: "libtorch_correlation",
            heading: "libtorch: correlation",
            title: "of the output with libtorch's, rounded",
            value: |head| head.libtorch?.correlation,
            text: |head| head.libtorch.as_ref().map_or_else(|| "-".to_owned(), correlation),
            worse: less,
            limit: NONE,
        });
        columns.push(Column {
            name: "libtorch_within_1",
            heading: "libtorch: within ±1",
            title: "share of elements with an error of one step at most against libtorch",
            value: |head| Some(head.libtorch?.within_1),
            text: |head| head.libtorch.map_or_else(|| "-".to_owned(), |metrics| percent(metrics.within_1) + " %"),
            worse: less,
            limit: NONE,
        });
    }
    columns
}

/// A figure, rounded, and in full for programs.
fn figure(name: &str, value: Option<f64>, text: &str) -> Markup {
    html! { @match value { Some(value) => data .(name) value=(value) { (text) }, None => (text) } }
}

/// What a page is made of.
struct All<'a> {
    report: &'a Report,
    pictures: &'a [CasePictures],
    columns: Vec<Column>,
}

/// The cases of a group by their numbers.
struct Group<'a> {
    name: &'static str,
    cases: Vec<(usize, &'a CaseReport)>,
}

impl<'a> Group<'a> {
    fn heads(&self) -> impl Iterator<Item = &'a HeadReport> {
        self.cases.iter().flat_map(|(_, case)| &case.per_head)
    }

    /// Each once.
    fn tolerances(&self) -> Vec<Tolerance> {
        let mut different: Vec<Tolerance> = Vec::new();
        for tolerance in self.cases.iter().map(|(_, case)| case.tolerance) {
            if !different.contains(&tolerance) {
                different.push(tolerance);
            }
        }
        different
    }
}

/// The place of a head in the page.
fn place(case: usize, head: usize) -> String {
    format!("case-{case}-head-{head}")
}

impl<'a> All<'a> {
    fn has_libtorch(&self) -> bool {
        self.report.libtorch.is_some()
    }

    fn by_group(&self) -> Vec<Group<'a>> {
        let mut groups: Vec<Group<'a>> = Vec::new();
        for (number, case) in self.report.cases.iter().enumerate() {
            match groups.iter_mut().find(|group| group.name == case.group) {
                Some(group) => group.cases.push((number, case)),
                None => groups.push(Group { name: case.group, cases: vec![(number, case)] }),
            }
        }
        groups
    }

    /// Every head with its case, the worst one first.
    fn by_badness(&self) -> Vec<(usize, usize, &'a HeadReport)> {
        let heads = self.report.cases.iter().enumerate();
        let heads = heads.flat_map(|(c, case)| case.per_head.iter().enumerate().map(move |(h, head)| (c, h, head)));
        let mut heads: Vec<_> = heads.map(|(c, h, head)| (self.badness(c, head), (c, h, head))).collect();
        heads.sort_by(|a, b| b.0.compare(&a.0));
        heads.into_iter().map(|(_, head)| head).collect()
    }

    fn badness(&self, case: usize, head: &HeadReport) -> Badness {
        Badness::of(head, self.fails(case, head))
    }

    fn fails(&self, case: usize, head: &HeadReport) -> bool {
        let tolerance = &self.report.cases[case].tolerance;
        !tolerance.check(&head.metrics, Some(head.correlation_loss)).is_empty()
    }

    /// Whether everything is well, in a sentence, and what is not.
    fn verdict(&self) -> Markup {
        let cases = &self.report.cases;
        let heads: usize = cases.iter().map(|case| case.per_head.len()).sum();
        let failing: Vec<_> = cases.iter().enumerate().filter(|(_, case)| !case.passed).collect();
        let violations: Vec<_> = failing
            .iter()
            .flat_map(|&(number, case)| case.violations.iter().map(move |violation| (number, case, violation)))
            .collect();
        let backend = &self.report.backend;
        html! {
            div .verdict .pass[self.report.passed] .fail[!self.report.passed] {
                p {
                    strong .badge { (mark(self.report.passed)) }
                    @if cases.is_empty() {
                        ": no case was run on the backend " (backend) "."
                    } @else if self.report.passed {
                        ": " (count(cases.len(), "case")) " with " (count(heads, "head")) " on the backend " (backend)
                        ", every figure within its limit."
                    } @else {
                        ": " (failing.len()) " of " (count(cases.len(), "case")) " on the backend " (backend)
                        @if failing.len() == 1 { " has" } @else { " have" } " figures outside their limits."
                    }
                }
                @if !violations.is_empty() {
                    ul {
                        @for (number, case, violation) in violations.iter().take(SHOWN) {
                            li { a href={ "#case-" (number) } { (case.group) ": " (case.name) } ": " (violation) }
                        }
                        @if violations.len() > SHOWN { li { (violations.len() - SHOWN) " more, at their cases" } }
                    }
                }
            }
        }
    }

    fn skipped(&self) -> Markup {
        let skipped = &self.report.skipped;
        html! {
            @if !skipped.is_empty() {
                section id="skipped" {
                    h2 { "Skipped" }
                    p { (count(skipped.len(), "case")) " of the suite that this backend does not take:" }
                    ul { @for case in skipped { li { (case.name) ": " (case.reason) } } }
                }
            }
        }
    }

    /// The worst figure of each group, and what is required.
    fn groups(&self) -> Markup {
        let groups = self.by_group();
        let mean = |group: &Group<'_>| {
            let heads = group.heads().count() as f64;
            group.heads().map(|head| head.metrics.equal).sum::<f64>() / heads
        };
        html! {
            section id="groups" {
                h2 { "Groups" }
                (scroll("Groups", &html! {
                    caption { "The worst head of each group, figure by figure, and the limits that every head must keep" }
                    thead { tr {
                        th scope="col" { "Group" } th scope="col" { "Cases" } th scope="col" { "Heads" }
                        (self.headings()) th scope="col" title="mean share of equal elements" { "Mean equal" }
                    } }
                    tbody {
                        @for group in &groups {
                            tr {
                                th scope="row" { a href={ "#" (identifier(group.name)) } { (group.name) } }
                                td { (group.cases.len()) } td { (group.heads().count()) }
                                @for column in &self.columns { td { (worst_text(column, group)) } }
                                td { (percent(mean(group))) " %" }
                            }
                            @for tolerance in group.tolerances() {
                                tr .required {
                                    th scope="row" {
                                        "required: " (tolerance.name)
                                        @if let Some((low, high)) = tolerance.full_range { ", outputs from " (low) " to " (high) }
                                    } td {} td {}
                                    (self.limits(&tolerance)) td {}
                                }
                            }
                        }
                    }
                }))
            }
        }
    }

    fn headings(&self) -> Markup {
        html! { @for column in &self.columns { th scope="col" title=(column.title) { (column.heading) } } }
    }

    fn limits(&self, tolerance: &Tolerance) -> Markup {
        let sign = |limit: &Limit| match (limit.least, tolerance.strict) {
            (true, true) => "> ",
            (true, false) => "≥ ",
            (false, true) => "< ",
            (false, false) => "≤ ",
        };
        html! {
            @for column in &self.columns { td { @if let Some(limit) = (column.limit)(tolerance) { (sign(&limit)) (limit.text) } } }
        }
    }

    /// The figures of a row; those outside their limits are marked.
    fn figures(&self, head: &HeadReport, tolerance: &Tolerance) -> Markup {
        let violations = tolerance.check(&head.metrics, Some(head.correlation_loss));
        let bad = |name: &str| violations.iter().any(|violation| violation.figure == name);
        let Metrics { got_range, expected_range, .. } = head.metrics;
        html! {
            @for column in &self.columns {
                @let bad = bad(column.name);
                td .bad[bad] { @if bad { "✗ " } (figure(column.name, (column.value)(head), &(column.text)(head))) }
            }
            @let bad = bad("got_min") || bad("got_max");
            td .bad[bad] { @if bad { "✗ " } (range("got", got_range)) }
            td { (range("expected", expected_range)) }
        }
    }

    fn row_headings(&self) -> Markup {
        html! {
            (self.headings())
            th scope="col" title="smallest and largest output" { "Output" }
            th scope="col" title="smallest and largest rounded truth" { "Truth" }
            th scope="col" { "Verdict" }
        }
    }

    fn worst(&self) -> Markup {
        let heads = self.by_badness();
        html! {
            @if heads.len() > 1 {
                section id="worst" {
                    h2 { "The worst heads" }
                    (scroll("The worst heads", &html! {
                        caption { "What fails first, then by largest and by mean error" }
                        thead { tr { th scope="col" { "Head" } (self.row_headings()) } }
                        tbody {
                            @for &(number, h, head) in heads.iter().take(WORST) {
                                @let case = &self.report.cases[number];
                                tr {
                                    th scope="row" {
                                        a href={ "#" (place(number, h)) } {
                                            (case.group) ": " (case.name) @if case.heads > 1 { ", head " (h) }
                                        }
                                    }
                                    (self.figures(head, &case.tolerance))
                                    td { (verdict(!self.fails(number, head))) }
                                }
                            }
                        }
                    }))
                }
            }
        }
    }

    fn group(&self, group: &Group<'a>) -> Markup {
        let mut all = Counts::default();
        for (number, _) in &group.cases {
            all.merge(&self.pictures[*number].all);
        }
        let mut worst_first: Vec<_> =
            group.cases.iter().map(|&(number, case)| (self.case_badness(number), number, case)).collect();
        worst_first.sort_by(|a, b| b.0.compare(&a.0));
        html! {
            section id=(identifier(group.name)) {
                h2 { (group.name) }
                p {
                    (count(group.cases.len(), "case")) ", " (count(group.heads().count(), "head")) "."
                    @if group.cases.iter().any(|(number, _)| self.pictures[*number].is_truncated) {
                        " The truth is attention on the floats from before they were quantised, truncated to int8, towards zero, as the "
                        "users of this tile compute it: what this page calls rounded truth is truncated here, and int8 alone costs more "
                        "than the ±0.5 between the dashed lines."
                    }
                }
                @if group.heads().count() > 1 { (chart::of_all(&all.drawn(), group.heads().map(|head| head.metrics.mae).collect())) }
                (self.cases(group))
                @for (i, (_, number, case)) in worst_first.into_iter().enumerate() { (self.case(number, case, i == 0)) }
            }
        }
    }

    fn case_badness(&self, number: usize) -> Badness {
        let heads = self.report.cases[number].per_head.iter().map(|head| self.badness(number, head));
        let worst = heads.max_by(Badness::compare);
        let case = &self.report.cases[number];
        worst.unwrap_or(Badness::of(&case.overall, !case.passed))
    }

    fn cases(&self, group: &Group<'_>) -> Markup {
        scroll(
            group.name,
            &html! {
                caption { "Every case, over all its heads together" }
                thead { tr {
                    th scope="col" { "Case" } th scope="col" title="heads × queries × keys × dimension" { "Shape" } (self.row_headings())
                } }
                tbody {
                    @for (number, case) in &group.cases {
                        tr data-case=(number) {
                            th scope="row" { a href={ "#case-" (number) } { (case.name) } }
                            td { (case.heads) " × " (case.queries) " × " (case.keys) " × " (case.dim) }
                            (self.figures(&case.overall, &case.tolerance))
                            td { (verdict(case.passed)) }
                        }
                    }
                }
            },
        )
    }

    fn case(&self, number: usize, case: &CaseReport, is_open: bool) -> Markup {
        let mut pictures: Vec<_> = self.pictures[number].heads.iter().collect();
        pictures.sort_by(|a, b| b.badness.compare(&a.badness).then(a.head.cmp(&b.head)));
        let shown = pictures.len();
        html! {
            details id={ "case-" (number) } .case .fail[!case.passed] open[is_open || !case.passed] {
                summary {
                    h3 { (case.name) } " " (summary_of(&case.overall)) " " (verdict(case.passed))
                }
                @if !case.violations.is_empty() {
                    ul .bad { @for violation in case.violations.iter().take(SHOWN) { li { (violation) } }
                        @if case.violations.len() > SHOWN { li { (case.violations.len() - SHOWN) " more, marked below" } } }
                }
                @if let Some(beside) = &case.beside {
                    p {
                        "The limits of the " (beside.name) ": "
                        @if beside.check(&case.overall.metrics, None).is_empty() { "met." } @else { "NOT met." }
                        " " (in_words(&self.columns, beside))
                    }
                }
                @if case.heads > 1 { (self.heads(number, case)) }
                @if shown < case.heads {
                    p .note { "Pictures of the worst " (shown) " of " (case.heads) " heads." }
                }
                @for (i, picture) in pictures.into_iter().enumerate() {
                    (head(number, case, picture, i == 0 || picture.fails && i < SHOWN))
                }
            }
        }
    }

    fn heads(&self, number: usize, case: &CaseReport) -> Markup {
        scroll(
            &case.name,
            &html! {
                caption { "Every head of " (case.name) }
                thead { tr { th scope="col" { "Head" } (self.row_headings()) } }
                tbody {
                    @for (h, report) in case.per_head.iter().enumerate() {
                        tr data-case=(number) data-head=(h) {
                            th scope="row" {
                                @if self.pictures[number].heads.iter().any(|picture| picture.head == h) {
                                    a href={ "#" (place(number, h)) } { "head " (h) }
                                } @else { "head " (h) }
                            }
                            (self.figures(report, &case.tolerance))
                            td { (verdict(!self.fails(number, report))) }
                        }
                    }
                }
            },
        )
    }
}

/// The pictures of a head, folded where there are several.
fn head(number: usize, case: &CaseReport, picture: &HeadPicture, is_open: bool) -> Markup {
    let id = place(number, picture.head);
    let figures = chart::of_head(&picture.map, &picture.counts);
    html! {
        @if case.heads == 1 {
            div id=(id) { (figures) }
        } @else {
            details id=(id) .head .fail[picture.fails] open[is_open] {
                summary {
                    h4 { "Head " (picture.head) } " " (summary_of(&case.per_head[picture.head])) " " (verdict(!picture.fails))
                }
                (figures)
            }
        }
    }
}

fn summary_of(head: &HeadReport) -> Markup {
    html! {
        span .figures-of {
            "equal " (percent(head.metrics.equal)) " %, within ±1 " (percent(head.metrics.within_1)) " %, max. "
            (number(head.metrics.max_error))
        }
    }
}

fn mark(passed: bool) -> &'static str {
    if passed { "✓ PASS" } else { "✗ FAIL" }
}

fn verdict(passed: bool) -> Markup {
    html! { span .badge .pass[passed] .fail[!passed] { (mark(passed)) } }
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// A range with both ends for programs.
fn range(name: &str, (low, high): (f64, f64)) -> Markup {
    let [min, max] = ["min", "max"].map(|end| format!("{name}_{end}"));
    html! { (figure(&min, Some(low), &number(low))) " … " (figure(&max, Some(high), &number(high))) }
}

/// A name of a group as the identifier of its section.
fn identifier(group: &str) -> String {
    format!("group-{}", group.replace(' ', "-"))
}

/// A table that scrolls by itself where it is wider than the page.
fn scroll(label: &str, table: &Markup) -> Markup {
    html! { div .scroll role="region" tabindex="0" aria-label={ "Table: " (label) } { table { (table) } } }
}

/// The worst head of a group in this figure; of what is not defined there is none.
fn worst_text(column: &Column, group: &Group<'_>) -> String {
    let heads = group.heads().filter_map(|head| Some(((column.value)(head)?, head)));
    let order = |a: f64, b: f64| if (column.worse)(a, b) { Ordering::Less } else { Ordering::Greater };
    let worst = heads.min_by(|a, b| if a.0.total_cmp(&b.0).is_eq() { Ordering::Equal } else { order(a.0, b.0) });
    worst.map_or_else(|| "-".to_owned(), |(_, head)| (column.text)(head))
}

/// The limits of a tolerance in a sentence.
fn in_words(columns: &[Column], tolerance: &Tolerance) -> String {
    let limits = columns.iter().filter_map(|column| Some((column, (column.limit)(tolerance)?)));
    let limits = limits.map(|(column, limit)| {
        let relation = match (limit.least, tolerance.strict) {
            (true, true) => "above",
            (true, false) => "at least",
            (false, true) => "below",
            (false, false) => "at most",
        };
        format!("{} {relation} {}", column.heading, limit.text)
    });
    let limits: Vec<_> = limits.collect();
    format!("({})", limits.join(", "))
}

fn how_to_read(libtorch: bool) -> Markup {
    html! {
        section id="how-to-read" {
            h2 { "How to read this" }
            p {
                "Int8 outputs are compared with float64 attention, the truth, in steps of the output’s scale, rounded to int8 as the output is. "
                b { "Loss" } " is the correlation with the truth that this rounding does not explain. "
                "The worst heads come first, and are unfolded. "
                @if libtorch { "The columns of libtorch are for information: no verdict depends on them. " }
            }
            p .note .screen { "Every figure is here in full, too, in the value of its data element. What is folded is not printed." }
            p { "Heat maps have a row for each query and a column for each element; colours, in steps:" }
            (chart::legend())
        }
    }
}

#[cfg(test)]
mod tests {
    use attn_ref::tolerance;

    use super::*;
    use crate::{
        backend::{BackendKind, Options},
        mask::HeadMasks,
        npz::Qkv,
        problem::Problem,
        suite::{self, Case, Expectation},
    };

    /// Two heads of three queries, five keys and eight elements.
    fn problem() -> Problem {
        let numbers = |len: usize, factor: usize| (0..len).map(|i| (i * factor % 251) as i8).collect();
        Problem {
            heads: 2,
            kv_heads: 1,
            queries: 3,
            keys: 5,
            dim: 8,
            tensors: Qkv { query: numbers(48, 7), key: numbers(40, 13), value: numbers(40, 29) },
            scales: Qkv { query: vec![0.02, 0.001], key: vec![0.02], value: vec![1.0] },
            masks: HeadMasks::default(),
        }
    }

    /// A report of cases with these tolerances, and its pictures; libtorch, where there is one, left out.
    fn report(tolerances: &[Tolerance], name: &str) -> (Report, Vec<CasePictures>) {
        report_against(&Expectation::Dequantised, tolerances, name)
    }

    fn report_against(expectation: &Expectation, tolerances: &[Tolerance], name: &str) -> (Report, Vec<CasePictures>) {
        let mut backend = BackendKind::Scalar.open(&Options::default()).expect("is always there");
        let mut pictures = Vec::new();
        let cases = tolerances.iter().map(|&tolerance| {
            let expectation = expectation.clone();
            let problem = Box::new(|| Ok((problem(), expectation)));
            let case =
                Case { group: "small", name: name.to_owned(), tolerance, beside: Some(tolerance::USERS), problem };
            let mut of_case = CasePictures::default();
            let mut report =
                suite::run(case, &mut *backend, &|_| (), &mut |head| of_case.add(head)).expect("a problem");
            pictures.push(of_case);
            [&mut report.overall].into_iter().chain(&mut report.per_head).for_each(|head| head.libtorch = None);
            report
        });
        let cases = cases.collect();
        (Report { libtorch: None, version: "1.2.3", ..Report::new("scalar", cases, Vec::new()) }, pictures)
    }

    fn environment() -> Environment {
        let text = str::to_owned;
        Environment {
            backend: text("scalar: the specification"),
            reference: text("float64"),
            input: text("small.npz"),
            command: text("attn validate"),
            date: text("2000-02-29 12:34:56 UTC"),
            cpu: text("a CPU"),
            instructions: text("none"),
            threads: 2,
            os: text("an operating system"),
        }
    }

    /// A tag a line; of the style and of the pictures only that they are there.
    fn readable(page: &str) -> String {
        const DATA: &str = "data:image/png;base64,";
        let page = page.replace(STYLE, "…").replace("><", ">\n<");
        let without_data = |line: &str| match line.split_once(DATA) {
            Some((before, data)) => format!("{before}{DATA}…{}", data.trim_start_matches(|c| c != '"')),
            None => line.to_owned(),
        };
        page.lines().map(without_data).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_page_is_as_it_was() {
        let (report, pictures) = report(&[tolerance::TRUTH], "A & B");
        insta::assert_snapshot!(readable(&page(&report, &pictures, &environment())));
    }

    #[test]
    fn a_truth_that_is_not_rounded_is_said_to_be_truncated() {
        let floats = |values: Vec<i8>| values.into_iter().map(f32::from).collect();
        let Qkv { query, key, value } = problem().tensors;
        let floats = Qkv { query: floats(query), key: floats(key), value: floats(value) };
        for (expectation, is_truncated) in
            [(Expectation::Floats(Box::new(floats)), true), (Expectation::Dequantised, false)]
        {
            let (report, pictures) = report_against(&expectation, &[tolerance::TRUTH], "x");
            let page = page(&report, &pictures, &environment());
            assert_eq!(page.contains("what this page calls rounded truth is truncated here"), is_truncated, "{page}");
        }
    }

    #[test]
    fn whatever_fails_comes_first() {
        let impossible = Tolerance { max_mae: Some(-1.0), ..tolerance::TRUTH };
        let (report, pictures) = report(&[tolerance::TRUTH, impossible], "<b>");
        let page = page(&report, &pictures, &environment());
        assert!(page.contains("✗ FAIL</strong>: 1 of 2 cases on the backend scalar has figures"), "{page}");
        assert!(page.contains("<a href=\"#case-1\">small: &lt;b&gt;</a>: mae: got 0"), "{page}");
        assert!(!page.contains("<b>:"), "{page}");
        let place = |what: &str| page.find(what).unwrap_or_else(|| panic!("no {what}"));
        assert!(
            place("<details class=\"case fail\" id=\"case-1\" open>") < place("<details class=\"case\" id=\"case-0\">")
        );
    }

    #[test]
    fn what_was_skipped_is_listed_and_nothing_is_no_success() {
        let skipped = vec![suite::Skipped { name: "mask".to_owned(), reason: "got a <mask>".to_owned() }];
        let page = page(&Report::new("kernel (host)", Vec::new(), skipped), &[], &environment());
        assert!(page.contains("no case was run on the backend kernel (host)."), "{page}");
        assert!(page.contains("<li>mask: got a &lt;mask&gt;</li>"), "{page}");
    }

    #[test]
    fn of_many_heads_the_worst_have_pictures() {
        let (mut report, mut pictures) = report(&[tolerance::TRUTH], "many");
        // As if the second one were not among them.
        pictures[0].heads.retain(|picture| picture.head == 0);
        report.cases[0].violations.clear();
        let page = page(&report, &pictures, &environment());
        assert!(page.contains("Pictures of the worst 1 of 2 heads."), "{page}");
        assert!(page.contains("data-head=\"1\"><th scope=\"row\">head 1<"), "{page}");
    }

    #[test]
    fn limits_are_said_as_they_are() {
        let (report, _) = report(&[tolerance::TRUTH], "x");
        let columns = columns(&report);
        assert_eq!(
            in_words(&columns, &tolerance::USERS),
            "(Correlation above 0.95, MAE below 2, Within ±5 above 95 %)"
        );
        assert_eq!(in_words(&columns, &tolerance::TRUTH), "(Loss at most 0.0002, Within ±1 at least 99.9 %)");
        assert_eq!([0.997, 0.999, 0.95, 1.0].map(share), ["99.7 %", "99.9 %", "95 %", "100 %"]);
    }
}

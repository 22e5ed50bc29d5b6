//! Prometheus' text format, written: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::fmt::Write as _;

use crate::core::histogram::Histogram;

/// What an exposition is, as HTTP calls it.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One exposition, metric by metric.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
}

/// Names of labels and their values.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

impl Page {
    /// A number that only grows; its samples follow.
    pub fn counter(&mut self, name: &str, help: &str) {
        self.head(name, help, "counter");
    }

    /// A number that goes up and down; its samples follow.
    pub fn gauge(&mut self, name: &str, help: &str) {
        self.head(name, help, "gauge");
    }

    /// One sample of the metric before.
    pub fn sample(&mut self, name: &str, labels: Labels<'_>, value: impl std::fmt::Display) {
        self.text.push_str(name);
        for (at, (label, value)) in labels.iter().enumerate() {
            let open = if at == 0 { '{' } else { ',' };
            // Writing to a string does not fail.
            let _ = write!(self.text, "{open}{label}=\"{}\"", escaped(value));
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    /// A number that only grows, with its one sample.
    pub fn count(&mut self, name: &str, help: &str, value: u64) {
        self.counter(name, help);
        self.sample(name, &[], value);
    }

    /// A histogram whose values are counted in units of which `per_unit` make one.
    pub fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram, per_unit: u32) {
        self.head(name, help, "histogram");
        let bucket = format!("{name}_bucket");
        for (bound, count) in histogram.cumulative() {
            let bound = bound.map_or_else(|| "+Inf".to_owned(), |bound| decimal(bound, per_unit));
            self.sample(&bucket, &[("le", &bound)], count);
        }
        let sum = decimal(histogram.sum(), per_unit);
        self.sample(&format!("{name}_sum"), &[], sum);
        self.sample(&format!("{name}_count"), &[], histogram.count());
    }

    /// The text.
    #[must_use]
    pub fn into_text(self) -> String {
        self.text
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }
}

/// `value / per_unit`, exactly, where `per_unit` is a power of ten.
pub(super) fn decimal(value: u64, per_unit: u32) -> String {
    if per_unit == 1 {
        return value.to_string();
    }
    let (whole, part) = (value / u64::from(per_unit), value % u64::from(per_unit));
    let width = per_unit.ilog10() as usize;
    format!("{whole}.{part:0width$}")
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_what_prometheus_reads() {
        let mut page = Page::default();
        page.count("a_total", "Things.", 3);
        page.gauge("b", "Others.");
        page.sample(
            "b",
            &[("x", "1"), ("y", "a\"b\\c\nd")],
            decimal(1_500, 1_000_000),
        );
        let mut histogram = Histogram::MICROSECONDS;
        histogram.observe(70);
        page.histogram("c_seconds", "Waits.", &histogram, 1_000_000);
        let text = page.into_text();
        let start = "# HELP a_total Things.\n# TYPE a_total counter\na_total 3\n\
                     # HELP b Others.\n# TYPE b gauge\nb{x=\"1\",y=\"a\\\"b\\\\c\\nd\"} 0.001500\n\
                     # HELP c_seconds Waits.\n# TYPE c_seconds histogram\n\
                     c_seconds_bucket{le=\"0.000050\"} 0\nc_seconds_bucket{le=\"0.000100\"} 1\n";
        assert!(text.starts_with(start), "{text}");
        let end = "c_seconds_bucket{le=\"+Inf\"} 1\nc_seconds_sum 0.000070\nc_seconds_count 1\n";
        assert!(text.ends_with(end), "{text}");
    }
}

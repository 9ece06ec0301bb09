//! The text that Prometheus reads: the catalogue's metrics as the prometheus crate's families, which it encodes.

use prometheus::{TextEncoder, proto};

use super::catalogue::{Kind, Metric};
use super::cells::{BOUNDS, Distribution, seconds};

/// A page that grows by one metric after the other.
#[derive(Default)]
pub struct Exposition {
    families: Vec<proto::MetricFamily>,
}

/// The metric that was begun last, whose samples come next.
pub struct Family<'e> {
    families: &'e mut Vec<proto::MetricFamily>,
    metric: &'static Metric,
}

/// What can be the value of a sample: Prometheus has only one kind of number.
pub trait Number {
    /// The number; exact up to 2^53.
    fn number(self) -> f64;
}

impl Exposition {
    /// Begins a metric.
    pub fn family(&mut self, metric: &'static Metric) -> Family<'_> {
        let mut family = proto::MetricFamily::default();
        family.set_name(metric.name.to_owned());
        family.set_help(metric.help.to_owned());
        family.set_field_type(match metric.kind {
            Kind::Counter => proto::MetricType::COUNTER,
            Kind::Gauge => proto::MetricType::GAUGE,
            Kind::Histogram => proto::MetricType::HISTOGRAM,
        });
        self.families.push(family);
        Family { families: &mut self.families, metric }
    }

    /// A metric without labels.
    pub fn one(&mut self, metric: &'static Metric, value: impl Number) {
        self.family(metric).sample(&[], value);
    }

    /// The page.
    pub fn into_bytes(self) -> Vec<u8> {
        let mut text = String::new();
        for family in self.families {
            // One without samples has nothing to show, and must not hide the others.
            let _ = TextEncoder::new().encode_utf8(&[family], &mut text);
        }
        text.into_bytes()
    }
}

impl Family<'_> {
    /// One sample, with the values of the metric's labels in their order.
    pub fn sample(&mut self, labels: &[&str], value: impl Number) {
        debug_assert_eq!(labels.len(), self.metric.labels.len(), "{}", self.metric.name);
        let mut sample = self.labelled(labels);
        match self.metric.kind {
            Kind::Counter => {
                let mut counter = proto::Counter::default();
                counter.set_value(value.number());
                sample.set_counter(counter);
            }
            Kind::Gauge => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(value.number());
                sample.set_gauge(gauge);
            }
            Kind::Histogram => debug_assert!(false, "{} is a histogram", self.metric.name),
        }
        self.push(sample);
    }

    /// A histogram, which is several samples.
    pub fn distribution(&mut self, labels: &[&str], distribution: &Distribution) {
        debug_assert_eq!(labels.len(), self.metric.labels.len(), "{}", self.metric.name);
        let mut below = 0;
        let buckets = BOUNDS.iter().zip(distribution.buckets).map(|(bound, count)| {
            below += count;
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(seconds(*bound));
            bucket.set_cumulative_count(below);
            bucket
        });
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(distribution.buckets.iter().sum());
        histogram.set_sample_sum(distribution.seconds);
        let mut sample = self.labelled(labels);
        sample.set_histogram(histogram);
        self.push(sample);
    }

    fn push(&mut self, sample: proto::Metric) {
        if let Some(family) = self.families.last_mut() {
            family.mut_metric().push(sample);
        }
    }

    fn labelled(&self, values: &[&str]) -> proto::Metric {
        let pair = |(label, value): (&super::catalogue::Label, &&str)| {
            let mut pair = proto::LabelPair::default();
            pair.set_name(label.name.to_owned());
            pair.set_value((*value).to_owned());
            pair
        };
        proto::Metric::from_label(self.metric.labels.iter().zip(values).map(pair).collect())
    }
}

impl Number for f64 {
    fn number(self) -> f64 {
        self
    }
}

impl Number for u8 {
    fn number(self) -> f64 {
        self.into()
    }
}

impl Number for u64 {
    fn number(self) -> f64 {
        self as f64
    }
}

impl Number for i64 {
    fn number(self) -> f64 {
        self as f64
    }
}

impl Number for usize {
    fn number(self) -> f64 {
        self as f64
    }
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::{Label, Values};
    use super::*;

    static ODD: Metric = Metric {
        name: "a_total",
        kind: Kind::Counter,
        labels: &[Label { name: "b", values: Values::Of("anything") }],
        help: "Two\nlines.",
        advice: "",
    };

    #[test]
    fn what_would_break_a_line_or_a_value_is_escaped() {
        let mut page = Exposition::default();
        page.family(&ODD);
        page.family(&ODD).sample(&["x\"y\\z\n"], 1_u64);
        let text = String::from_utf8(page.into_bytes()).unwrap();
        assert_eq!(text, "# HELP a_total Two\\nlines.\n# TYPE a_total counter\na_total{b=\"x\\\"y\\\\z\\n\"} 1\n");
    }
}

//! Figures of paired rounds: medians, ratios within a round, limits; as a table for people and as JSON for programs.

use std::fmt::Write as _;

/// What everything is compared with.
pub(crate) const YARDSTICK: &str = "mosquitto";

/// One kind of figure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    /// What a table calls it.
    pub(crate) title: &'static str,
    /// What JSON calls it.
    pub(crate) key: &'static str,
    /// Digits after the point.
    pub(crate) digits: usize,
}

/// What one bench found. The first column is the one with limits.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) bench: String,
    /// What was measured, in a line.
    pub(crate) about: String,
    pub(crate) columns: &'static [Column],
    pub(crate) rows: Vec<Row>,
    pub(crate) limits: Vec<Limit>,
}

/// One broker's figures.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) broker: String,
    /// For each round one figure of each column.
    pub(crate) rounds: Vec<Vec<f64>>,
}

/// What is to hold.
#[derive(Debug)]
pub(crate) struct Limit {
    pub(crate) broker: String,
    pub(crate) what: &'static str,
    pub(crate) bound: Bound,
    /// `None`: it was not measured, or not beside what it is compared with.
    pub(crate) value: Option<f64>,
}

/// How far a figure may go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    Most(f64),
    Least(f64),
}

impl Limit {
    /// Whether it holds. What was not measured does not.
    pub(crate) fn holds(&self) -> bool {
        self.value.is_some_and(|value| match self.bound {
            Bound::Most(most) => value <= most,
            Bound::Least(least) => value >= least,
        })
    }
}

impl Report {
    /// The median of a figure.
    pub(crate) fn median(&self, broker: &str, column: usize) -> Option<f64> {
        let row = self.rows.iter().find(|row| row.broker == broker)?;
        median(
            row.rounds
                .iter()
                .filter_map(|round| round.get(column).copied()),
        )
    }

    /// The median, over the rounds, of the first figure beside mosquitto's in the same round.
    pub(crate) fn ratio(&self, broker: &str) -> Option<f64> {
        let rounds = |name: &str| {
            let row = self.rows.iter().find(|row| row.broker == name)?;
            Some(row.rounds.iter().filter_map(|round| round.first().copied()))
        };
        median(
            rounds(broker)?
                .zip(rounds(YARDSTICK)?)
                .map(|(ours, theirs)| ours / theirs),
        )
    }

    /// The table.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("\n{}\n", self.about);
        let _ = write!(text, "{:<16}", "broker");
        for column in self.columns {
            let _ = write!(text, "{:>18}", column.title);
        }
        let _ = writeln!(text, "{:>18}", format!("× {YARDSTICK}"));
        for row in &self.rows {
            let _ = write!(text, "{:<16}", row.broker);
            for (at, column) in self.columns.iter().enumerate() {
                let figure = self.median(&row.broker, at).unwrap_or(f64::NAN);
                let _ = write!(text, "{figure:>18.digits$}", digits = column.digits);
            }
            match self.ratio(&row.broker) {
                Some(ratio) => _ = writeln!(text, "{ratio:>18.2}"),
                None => _ = writeln!(text, "{:>18}", "-"),
            }
        }
        for limit in &self.limits {
            let verdict = if limit.holds() { "holds" } else { "NOT HELD" };
            let value = limit
                .value
                .map_or_else(|| "not measured".to_owned(), |value| format!("{value:.2}"));
            let bound = match limit.bound {
                Bound::Most(most) => format!("at most {most}"),
                Bound::Least(least) => format!("at least {least}"),
            };
            let _ = writeln!(
                text,
                "{verdict:<9} {}: {} {value}, {bound}",
                limit.broker, limit.what
            );
        }
        text
    }

    /// The same, and every round.
    pub(crate) fn json(&self) -> serde_json::Value {
        let rows = self.rows.iter().map(|row| {
            let mut figures = serde_json::Map::new();
            for (at, column) in self.columns.iter().enumerate() {
                let rounds: Vec<_> = row
                    .rounds
                    .iter()
                    .filter_map(|round| round.get(at))
                    .collect();
                figures.insert(
                    column.key.to_owned(),
                    serde_json::json!({ "median": self.median(&row.broker, at), "rounds": rounds }),
                );
            }
            serde_json::json!({
                "broker": row.broker,
                "figures": figures,
                "ratio_to_mosquitto": self.ratio(&row.broker),
            })
        });
        let limits = self.limits.iter().map(|limit| {
            let (key, bound) = match limit.bound {
                Bound::Most(most) => ("most", most),
                Bound::Least(least) => ("least", least),
            };
            serde_json::json!({
                "broker": limit.broker,
                "what": limit.what,
                key: bound,
                "value": limit.value,
                "holds": limit.holds(),
            })
        });
        serde_json::json!({
            "bench": self.bench,
            "about": self.about,
            "brokers": rows.collect::<Vec<_>>(),
            "limits": limits.collect::<Vec<_>>(),
        })
    }
}

/// The middle one; of an even number, the mean of the two in the middle.
pub(crate) fn median(figures: impl Iterator<Item = f64>) -> Option<f64> {
    let mut figures: Vec<_> = figures.filter(|figure| figure.is_finite()).collect();
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    let upper = *figures.get(middle)?;
    if figures.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(upper, *figures.get(middle - 1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 1] = [Column {
        title: "CPU",
        key: "cpu",
        digits: 1,
    }];

    fn report(ours: &[f64], theirs: &[f64]) -> Report {
        let row = |broker: &str, figures: &[f64]| Row {
            broker: broker.to_owned(),
            rounds: figures.iter().map(|figure| vec![*figure]).collect(),
        };
        Report {
            bench: String::new(),
            about: String::new(),
            columns: &COLUMNS,
            rows: vec![row("ours", ours), row(YARDSTICK, theirs)],
            limits: Vec::new(),
        }
    }

    #[test]
    fn a_ratio_is_taken_within_each_round_before_the_median() {
        // A round in which everything was slow changes the medians, and not the ratio.
        let report = report(&[1.0, 10.0, 12.0], &[2.0, 20.0, 24.0]);
        assert_eq!(report.ratio("ours"), Some(0.5));
        assert_eq!(report.median("ours", 0), Some(10.0));
        assert_eq!(report.ratio("absent"), None);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), Some(2.5));
        assert_eq!(median([f64::NAN, 3.0].into_iter()), Some(3.0));
        assert_eq!(median(std::iter::empty()), None);
    }

    #[test]
    fn what_was_not_measured_does_not_hold() {
        let limit = |bound, value| Limit {
            broker: String::new(),
            what: "",
            bound,
            value,
        };
        let (most, least) = (Bound::Most(3.0), Bound::Least(3.0));
        assert!(limit(most, Some(3.0)).holds() && limit(least, Some(3.0)).holds());
        assert!(!limit(most, Some(3.01)).holds() && !limit(least, Some(2.99)).holds());
        assert!(!limit(most, None).holds() && !limit(least, None).holds());
    }
}

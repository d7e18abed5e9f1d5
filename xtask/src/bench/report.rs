//! The results of a benchmark: a table for people, and the same as JSON in the last line for programs.

use serde_json::{Map, Value, json};

use crate::output;

/// A column's name for programs, and its heading in the table.
pub(super) type Column = (&'static str, &'static str);

/// Prints the rows. They are objects whose fields are the columns' names; a missing field is blank in the table.
pub(super) fn print(bench: &str, columns: &[Column], rows: &[Value]) {
    lines(bench, columns, rows).iter().for_each(|line| output::line(line));
}

fn lines(bench: &str, columns: &[Column], rows: &[Value]) -> Vec<String> {
    let cells = |row: &Value| columns.iter().map(|(name, _)| cell(&row[*name])).collect::<Vec<_>>();
    let mut table = vec![columns.iter().map(|(_, heading)| (*heading).to_owned()).collect::<Vec<_>>()];
    table.extend(rows.iter().map(cells));
    let widths: Vec<usize> = (0..columns.len())
        .map(|i| table.iter().map(|cells| cells[i].chars().count()).max().unwrap_or(0))
        .collect();
    let mut lines: Vec<String> = table
        .iter()
        .map(|cells| {
            let padded = cells.iter().zip(&widths).enumerate().map(|(i, (cell, &width))| match i {
                // The first column is a name.
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
            padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        })
        .collect();
    lines.push(json!({ "bench": bench, "rows": rows }).to_string());
    lines
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Makes a row of a throughput beside its floor, which is what the same machine does in the same minute without Aster.
pub(super) fn with_floor(mut row: Map<String, Value>, per_second: f64, floor_per_second: f64) -> Value {
    row.insert("per_second".into(), json!(per_second.round()));
    row.insert("floor_per_second".into(), json!(floor_per_second.round()));
    row.insert("ratio".into(), json!(rounded(per_second / floor_per_second)));
    Value::Object(row)
}

/// Rounds to two decimal places.
pub(super) fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

/// Returns the median; of an even number of values, the upper one of the two in the middle.
pub(super) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Returns the value below which this share of all values lies, from 0 to 1.
pub(super) fn percentile(numbers: &[f64], of: f64) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = (sorted.len().saturating_sub(1) as f64 * of).round() as usize;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_a_table_and_ends_with_the_same_as_json() {
        let row = Map::from_iter([("name".to_owned(), json!("order")), ("concurrency".to_owned(), json!(4))]);
        let rows = [with_floor(row, 50.4, 100.0), json!({"name": "a longer name", "per_second": 7.0})];
        let columns = [
            ("name", "workflow"),
            ("concurrency", "at a time"),
            ("per_second", "runs/s"),
            ("ratio", "ratio"),
        ];
        let lines = lines("saga", &columns, &rows);
        assert_eq!(
            lines[..3],
            [
                "workflow       at a time  runs/s  ratio",
                "order                  4    50.0    0.5",
                "a longer name                7.0",
            ]
        );
        let last: Value = serde_json::from_str(&lines[3]).expect("the last line is JSON");
        assert_eq!(last, json!({"bench": "saga", "rows": rows}));
    }

    #[test]
    fn the_median_is_the_one_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
    }
}

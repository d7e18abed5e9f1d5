//! A run's events as lines for people.

use chrono::DateTime;
use serde_json::Value;

/// Renders a line for the end of each step and compensation and for the run's own events, with the time since its first
/// event. A start is omitted if there is nothing else to say about it, because the end of the attempt says how long it
/// took.
pub(crate) fn render(events: &[Value]) -> String {
    let begin = events.first().and_then(millis);
    let lines = events.iter().filter_map(|event| {
        let told = tell(event)?;
        let time = match (begin, millis(event)) {
            (Some(begin), Some(now)) => format!("+{} ms", now - begin),
            _ => String::new(),
        };
        Some(told.line(&time))
    });
    std::iter::once(head()).chain(lines).collect::<Vec<_>>().join("\n")
}

fn head() -> String {
    let column = str::to_owned;
    let head = Told {
        what: column("step"),
        attempt: column("attempt"),
        took: column("took"),
        fuel: column("fuel"),
        code: column("code"),
        outcome: column("outcome"),
    };
    head.line("time")
}

impl Told {
    fn line(&self, time: &str) -> String {
        let Self { what, attempt, took, fuel, code, outcome } = self;
        if attempt.is_empty() {
            return format!("  {time:>9}  {what}: {outcome}");
        }
        format!("  {time:>9}  {what:<26} {attempt:>7}  {took:<9} {fuel:>9}  {code:<34} {outcome}")
    }
}

/// One event in words.
struct Told {
    what: String,
    attempt: String,
    took: String,
    fuel: String,
    code: String,
    outcome: String,
}

fn tell(event: &Value) -> Option<Told> {
    let kind = event["eventType"].as_str().unwrap_or("?");
    let payload = &event["payload"];
    let message = || text(&payload["error"]["message"]);
    let outcome = match kind {
        // A step that is started again gets a line, because its host was lost.
        "STEP_STARTED" | "COMPENSATION_STARTED" if payload["rerun"].as_u64().unwrap_or(0) > 0 => {
            format!("started again, host lost {} times", payload["rerun"])
        }
        "STEP_STARTED" | "COMPENSATION_STARTED" => return None,
        "WORKFLOW_STARTED" => "started".into(),
        "STEP_COMPLETED" => "done".into(),
        "STEP_FAILED" => format!("failed: {}", message()),
        "STEP_SKIPPED" => "skipped".into(),
        "STEP_CANCELLED" => "cancelled".into(),
        "STEP_RETRY_SCHEDULED" | "COMPENSATION_RETRY_SCHEDULED" => {
            format!(
                "failed: {}; attempt {} at {}",
                message(),
                payload["nextAttempt"],
                text(&payload["nextAttemptAt"])
            )
        }
        "WORKFLOW_FAILED" => failure(payload),
        "COMPENSATION_COMPLETED" => "undone".into(),
        "COMPENSATION_FAILED" => format!("not undone: {}", message()),
        "WORKFLOW_COMPLETED" => "completed".into(),
        "WORKFLOW_COMPENSATED" => "compensated".into(),
        "WORKFLOW_COMPENSATION_FAILED" => format!("not undone: {}", names(&payload["failed"])),
        other => other.to_lowercase().replace('_', " "),
    };
    // Only an attempt's events have the step in front. The run's own events name a step only as their cause.
    let what = match payload["step"].as_str() {
        Some(step) if kind.starts_with("STEP_") => step.to_owned(),
        Some(step) if kind.starts_with("COMPENSATION_") => format!("undo {step}"),
        _ => "the run".to_owned(),
    };
    Some(Told {
        what,
        attempt: payload["attempt"].as_u64().map(|n| n.to_string()).unwrap_or_default(),
        took: payload["durationMicros"].as_u64().map(duration).unwrap_or_default(),
        fuel: payload["fuelUsed"].as_u64().map(thousands).unwrap_or_default(),
        code: code(payload),
        outcome,
    })
}

fn failure(payload: &Value) -> String {
    let cause = match payload["cause"].as_str() {
        Some("STEP") => format!("{} failed", text(&payload["step"])),
        Some("TIMEOUT") => "out of time".to_owned(),
        Some("CANCEL") => "cancelled".to_owned(),
        _ => text(&payload["cause"]),
    };
    match names(&payload["compensations"]) {
        names if names.is_empty() => format!("{cause}; nothing to undo"),
        names => format!("{cause}; to undo: {names}"),
    }
}

/// Returns the code of an attempt, for example `inventory.reserve @1a2b3c4d`.
fn code(payload: &Value) -> String {
    let (Some(component), Some(function)) = (payload["component"].as_str(), payload["function"].as_str())
    else {
        return String::new();
    };
    let digest = payload["digest"].as_str().unwrap_or_default();
    let digest = digest.strip_prefix("sha256:").unwrap_or(digest);
    format!("{component}.{function} @{}", digest.get(..8).unwrap_or(digest))
}

fn names(list: &Value) -> String {
    list.as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(", ")
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn millis(event: &Value) -> Option<i64> {
    Some(DateTime::parse_from_rfc3339(event["occurredAt"].as_str()?).ok()?.timestamp_millis())
}

fn duration(micros: u64) -> String {
    if micros < 1_000 {
        format!("{micros} us")
    } else {
        format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100)
    }
}

/// Formats a number as `1 234 567`.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rendered(fixture: &str) -> String {
        let events: Vec<Value> = serde_json::from_str(fixture).expect("the fixture is an array of events");
        render(&events)
    }

    #[test]
    fn a_declined_order_reads_as_a_story() {
        insta::assert_snapshot!(rendered(include_str!("declined-order.json")));
    }

    #[test]
    fn a_step_that_is_started_again_after_a_crash_is_shown() {
        let event =
            json!({"eventType": "STEP_STARTED", "payload": {"step": "charge", "attempt": 1, "rerun": 2}});
        assert!(render(&[event]).ends_with("started again, host lost 2 times"));
    }

    #[test]
    fn an_event_of_a_newer_host_is_shown_by_its_name() {
        let event = json!({"eventType": "OPERATOR_RETRY", "payload": {}});
        assert!(render(&[event]).ends_with("operator retry"));
    }

    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!([thousands(7), thousands(1_234), thousands(1_234_567)], ["7", "1 234", "1 234 567"]);
        assert_eq!([duration(850), duration(12_340)], ["850 us", "12.3 ms"]);
    }
}

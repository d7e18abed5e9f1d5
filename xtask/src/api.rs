//! A client of the host's REST API, with the calls that the demo and the benchmarks use.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use ureq::Agent;
use ureq::http::{HeaderValue, Request, Response};

/// A host at an address. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub(crate) struct Api {
    agent: Agent,
    base: String,
    /// `None` means the default tenant.
    tenant: Option<&'static str>,
}

impl Api {
    pub(crate) fn new(address: &str) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            .build();
        Self { agent: config.into(), base: format!("http://{address}"), tenant: None }
    }

    /// Returns a client of the same host for another tenant.
    pub(crate) fn of_tenant(&self, tenant: &'static str) -> Self {
        Self { tenant: Some(tenant), ..self.clone() }
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.agent
            .get(format!("{}/readyz", self.base))
            .call()
            .is_ok_and(|answer| answer.status().is_success())
    }

    pub(crate) fn put_component(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.send("PUT", &format!("/api/components/{name}"), "application/wasm", bytes).map(drop)
    }

    /// Deploys every workflow of a file.
    pub(crate) fn deploy(&self, source: &str) -> Result<()> {
        self.send("POST", "/api/definitions", "text/plain; charset=utf-8", source.as_bytes()).map(drop)
    }

    /// Starts a run of a definition, and returns its id.
    pub(crate) fn start(&self, definition: &str, key: &str, input: &Value) -> Result<String> {
        let request = Request::post(format!("{}/api/definitions/{definition}/runs", self.base))
            .header("Content-Type", "application/json")
            .header("Idempotency-Key", key)
            .body(input.to_string().into_bytes())?;
        workflow_id(&json(&self.call(request)?.context("the definition isn't deployed")?)?)
    }

    /// Starts a run, and returns its state when it is over.
    pub(crate) fn run_to_end(&self, definition: &str, input: &Value) -> Result<Value> {
        let request = Request::post(format!("{}/api/definitions/{definition}/runs", self.base))
            .header("Content-Type", "application/json")
            .header("Prefer", "wait=30")
            .body(input.to_string().into_bytes())?;
        json(&self.call(request)?.context("the definition isn't deployed")?)
    }

    /// Returns how many commits (acceptances and transitions) the host has made for runs since its start.
    pub(crate) fn commits(&self) -> Result<u64> {
        let text = String::from_utf8(self.get("/metrics")?).context("`/metrics` is not text")?;
        let counts =
            text.lines().filter_map(|line| line.strip_prefix("aster_commits_total{")?.split_once("} "));
        counts.map(|(_, n)| n.parse::<u64>().context("a counter is not a number")).sum()
    }

    /// Starts a run by a trigger's path, and returns its id.
    pub(crate) fn trigger(&self, path: &str, input: &Value) -> Result<String> {
        workflow_id(&json(&self.send("POST", path, "application/json", input.to_string().as_bytes())?)?)
    }

    pub(crate) fn state(&self, workflow_id: &str) -> Result<Value> {
        self.get_json(&format!("/api/workflows/{workflow_id}"))
    }

    pub(crate) fn events(&self, workflow_id: &str) -> Result<Vec<Value>> {
        match self.get_json(&format!("/api/workflows/{workflow_id}/events"))? {
            Value::Array(events) => Ok(events),
            other => bail!("the events are not an array: {other}"),
        }
    }

    /// Returns how many runs are in a status.
    pub(crate) fn count(&self, status: &str) -> Result<u64> {
        self.get_json("/api/workflows/metrics")?[status]
            .as_u64()
            .with_context(|| format!("no count of `{status}`"))
    }

    pub(crate) fn cancel(&self, workflow_id: &str) -> Result<()> {
        self.send("POST", &format!("/api/workflows/{workflow_id}/cancel"), "application/json", b"").map(drop)
    }

    /// Returns the body of the answer, whatever it is.
    pub(crate) fn get(&self, path: &str) -> Result<Vec<u8>> {
        let request = Request::get(format!("{}{path}", self.base)).body(Vec::new())?;
        self.call(request)?.with_context(|| format!("`{path}` doesn't exist"))
    }

    pub(crate) fn put_value(&self, component: &str, bucket: &str, key: &str, value: &str) -> Result<()> {
        let path = value_path(component, bucket, key);
        self.send("PUT", &path, "application/octet-stream", value.as_bytes()).map(drop)
    }

    /// Returns everything that a bucket contains: keys with their values as text.
    pub(crate) fn values(&self, component: &str, bucket: &str) -> Result<Vec<(String, String)>> {
        let mut values = Vec::new();
        let mut query = String::new();
        loop {
            let page = self.get_json(&format!("/api/components/{component}/keyvalue/{bucket}{query}"))?;
            for item in page["items"].as_array().context("the list has no `items`")? {
                let (key, value) = (item["key"].as_str(), item["valueBase64"].as_str());
                let value =
                    BASE64_STANDARD.decode(value.unwrap_or_default()).context("a value isn't base64")?;
                values
                    .push((key.unwrap_or_default().to_owned(), String::from_utf8_lossy(&value).into_owned()));
            }
            match page["nextCursor"].as_str() {
                Some(cursor) => query = format!("?cursor={}", escaped(cursor)),
                None => return Ok(values),
            }
        }
    }

    fn get_json(&self, path: &str) -> Result<Value> {
        json(&self.get(path)?)
    }

    fn send(&self, method: &str, path: &str, content_type: &str, body: &[u8]) -> Result<Vec<u8>> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("Content-Type", content_type)
            .body(body.to_owned())?;
        self.call(request)?.with_context(|| format!("`{path}` doesn't exist"))
    }

    /// Returns the body of the answer, or `None` for 404. Any other status that isn't a success is an error with the
    /// host's own message.
    fn call(&self, mut request: Request<Vec<u8>>) -> Result<Option<Vec<u8>>> {
        if let Some(tenant) = self.tenant {
            request.headers_mut().insert("X-Tenant-Id", HeaderValue::from_static(tenant));
        }
        let what = format!("{} {}", request.method(), request.uri().path());
        // The client refuses a body with some methods, even an empty one.
        let answer = if request.body().is_empty() {
            self.agent.run(request.map(drop))
        } else {
            self.agent.run(request)
        };
        let mut answer: Response<ureq::Body> = answer.with_context(|| what.clone())?;
        let body =
            answer.body_mut().with_config().limit(64 << 20).read_to_vec().with_context(|| what.clone())?;
        match answer.status().as_u16() {
            200..300 => Ok(Some(body)),
            404 => Ok(None),
            status => bail!("{what}: {status}: {}", problem(&body)),
        }
    }
}

/// Formats a problem (RFC 9457) as text.
fn problem(body: &[u8]) -> String {
    let Ok(problem) = json(body) else { return String::from_utf8_lossy(body).into_owned() };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut words =
        text(&problem["detail"]).or_else(|| text(&problem["title"])).unwrap_or_else(|| problem.to_string());
    let faults = problem["errors"].as_array().or_else(|| problem["diagnostics"].as_array());
    for fault in faults.into_iter().flatten() {
        words.push_str(&format!("\n  {fault}"));
    }
    words
}

fn json(body: &[u8]) -> Result<Value> {
    serde_json::from_slice(body).with_context(|| format!("not JSON: {}", String::from_utf8_lossy(body)))
}

fn workflow_id(answer: &Value) -> Result<String> {
    answer["workflowId"].as_str().map(str::to_owned).with_context(|| format!("no run was started: {answer}"))
}

fn value_path(component: &str, bucket: &str, key: &str) -> String {
    format!("/api/components/{component}/keyvalue/{bucket}/{}", escaped(key))
}

fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_escaped_as_one_part_of_a_path() {
        assert_eq!(
            value_path("suppliers", "purchase-orders", "REQ-1/supplier a"),
            "/api/components/suppliers/keyvalue/purchase-orders/REQ-1%2Fsupplier%20a"
        );
    }

    #[test]
    fn a_problem_is_shown_by_its_detail_and_faults() {
        let body =
            br#"{"title": "Bad", "detail": "no such step", "errors": [{"pointer": "/a", "detail": "x"}]}"#;
        assert_eq!(problem(body), "no such step\n  {\"detail\":\"x\",\"pointer\":\"/a\"}");
        assert_eq!(problem(b"upstream died"), "upstream died");
    }
}

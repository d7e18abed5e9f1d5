//! A client of REST: requests, and answers with a status, headers and a body.

use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a run may take to end before its test has failed. This is generous, since machines that test are busy.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub struct Client {
    agent: ureq::Agent,
    base: String,
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name));
        header.map(|(_, value)| value.as_str())
    }

    /// # Panics
    /// Panics if the body isn't JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!("{error}: {} {}", self.status, String::from_utf8_lossy(&self.body))
        })
    }

    /// Returns the answer if it has this status.
    ///
    /// # Panics
    /// Panics if it has another one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self
    }
}

impl Client {
    pub fn new(base: impl Into<String>) -> Self {
        Self::with_patience(base, PATIENCE)
    }

    /// Makes a client that counts an answer as lost if it doesn't arrive in time.
    pub fn with_patience(base: impl Into<String>, patience: Duration) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(patience))
            // A test may have this many threads.
            .max_idle_connections_per_host(64)
            .build();
        Self { agent: config.into(), base: base.into() }
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    /// # Errors
    /// Returns an error if the host can't be reached, or if the connection breaks.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, ureq::Error> {
        let mut request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.to_vec())?;
        let answer = if body.is_empty() && matches!(method, "GET" | "DELETE") {
            self.agent.run(request.map(|_| ()))?
        } else {
            self.agent.run(request)?
        };
        let (parts, mut body) = answer.into_parts();
        Ok(Answer {
            status: parts.status.as_u16(),
            headers: parts
                .headers
                .iter()
                .map(|(name, value)| {
                    (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
                })
                .collect(),
            body: body.with_config().limit(100 << 20).read_to_vec()?,
        })
    }

    /// # Panics
    /// Panics if the host can't be reached.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], &[]).unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// # Panics
    /// Panics if the host can't be reached.
    #[track_caller]
    pub fn put(&self, path: &str, body: &[u8]) -> Answer {
        self.request("PUT", path, &[], body).unwrap_or_else(|error| panic!("PUT {path}: {error}"))
    }

    /// # Panics
    /// Panics if the host can't be reached.
    #[track_caller]
    pub fn delete(&self, path: &str) -> Answer {
        self.request("DELETE", path, &[], &[]).unwrap_or_else(|error| panic!("DELETE {path}: {error}"))
    }

    /// # Panics
    /// Panics if the host can't be reached.
    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_with(path, &[], body)
    }

    /// # Panics
    /// Panics if the host can't be reached.
    #[track_caller]
    pub fn post_with(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let mut headers = headers.to_vec();
        headers.push(("Content-Type", "application/json"));
        let body = body.to_string();
        self.request("POST", path, &headers, body.as_bytes())
            .unwrap_or_else(|error| panic!("POST {path}: {error}"))
    }

    /// Waits until a run is over, and returns its state.
    ///
    /// # Panics
    /// Panics if it isn't over within a minute.
    #[track_caller]
    pub fn ended(&self, workflow_id: &str) -> Value {
        let began = Instant::now();
        loop {
            let state = self.get(&format!("/api/workflows/{workflow_id}")).expect(200).json();
            let over = ["COMPLETED", "FAILED", "COMPENSATED", "COMPENSATION_FAILED"];
            if over.contains(&state["status"].as_str().unwrap_or_default()) {
                return state;
            }
            assert!(began.elapsed() < PATIENCE, "still {}: {}", state["status"], self.events(workflow_id));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[track_caller]
    pub fn events(&self, workflow_id: &str) -> Value {
        self.get(&format!("/api/workflows/{workflow_id}/events?limit=1000")).expect(200).json()
    }

    /// Returns the log of a run, one text such as `STEP_STARTED charge_payment` for each event.
    #[track_caller]
    pub fn log(&self, workflow_id: &str) -> Vec<String> {
        let events = self.events(workflow_id);
        let events = events.as_array().expect("events are an array");
        events
            .iter()
            .map(|event| {
                let event_type = event["eventType"].as_str().unwrap_or_default();
                match event["payload"]["step"].as_str() {
                    Some(step) => format!("{event_type} {step}"),
                    None => event_type.to_owned(),
                }
            })
            .collect()
    }
}

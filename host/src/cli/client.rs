//! The HTTP client with which commands talk to a host.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, bail};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::http::{Request, StatusCode};

use super::print;

/// The characters that need no encoding in a part of a path or a query (RFC 3986, unreserved).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Percent-encodes a part of a path or a query.
pub(super) fn encode(part: &str) -> Cow<'_, str> {
    utf8_percent_encode(part, ENCODED).into()
}

#[derive(Debug)]
pub(super) struct Client {
    agent: ureq::Agent,
    base: String,
    tenant: Option<String>,
    user: Option<String>,
}

/// The answer of a host that didn't refuse the request.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Vec<u8>,
}

/// A problem with which a host refused a request (RFC 9457).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Refusal {
    #[serde(rename = "type")]
    kind: String,
    title: String,
    status: u16,
    detail: String,
    errors: Vec<Fault>,
    /// The diagnostics of a source file.
    pub(super) diagnostics: Vec<Value>,
    /// The base URL of the host that refused.
    #[serde(skip)]
    base: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Fault {
    pointer: Option<String>,
    detail: String,
}

impl Client {
    /// # Errors
    /// Returns an error if `host` is not a URL that this client can use.
    pub(super) fn new(host: &str, tenant: Option<String>, user: Option<String>) -> anyhow::Result<Self> {
        let base = host.trim_end_matches('/');
        if base.starts_with("https://") {
            bail!(
                "`{host}` needs TLS, but this client speaks only plain HTTP: use an address inside the host's network, or a tunnel"
            );
        }
        let base = if base.contains("://") { base.to_owned() } else { format!("http://{base}") };
        if !base.starts_with("http://") || base.len() == "http://".len() {
            bail!("`{host}` is not the URL of a host: expected a URL such as http://127.0.0.1:8080");
        }
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(5)))
            .user_agent(concat!("aster/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        Ok(Self { agent, base, tenant, user })
    }

    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.send("GET", path, &[], Vec::new())?.json()
    }

    /// # Errors
    /// Returns an error if the host can't be reached, or a [`Refusal`] if it refuses the request.
    pub(super) fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> anyhow::Result<Answer> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        let own = [("X-Tenant-Id", self.tenant.as_deref()), ("X-User-Id", self.user.as_deref())];
        let own = own.into_iter().filter_map(|(name, value)| Some((name, value?)));
        for (name, value) in own.chain(headers.iter().copied()) {
            request = request.header(name, value);
        }
        let sent = match method {
            "GET" | "DELETE" => self.agent.run(request.body(()).context("the request can't be made")?),
            _ => self.agent.run(request.body(body).context("the request can't be made")?),
        };
        let mut response = sent.map_err(|error| self.explain(error))?;
        let status = response.status();
        let body = response.body_mut().with_config().limit(u64::MAX).read_to_vec();
        let body = body.with_context(|| format!("the answer from {} ended early", self.base))?;
        if status.is_success() {
            return Ok(Answer { status, body });
        }
        let refusal = serde_json::from_slice::<Refusal>(&body).ok().filter(|refusal| refusal.status != 0);
        let refusal = refusal.unwrap_or_else(|| Refusal {
            title: format!("{} answered with status {status}", self.base),
            status: status.as_u16(),
            detail: String::from_utf8_lossy(&body).chars().take(500).collect(),
            ..Refusal::default()
        });
        Err(Refusal { base: self.base.clone(), ..refusal }.into())
    }

    fn explain(&self, error: ureq::Error) -> anyhow::Error {
        anyhow::Error::from(error).context(format!(
            "can't reach a host at {}: start one with `aster serve`, or give its address with --host or ASTER_HOST",
            self.base
        ))
    }
}

impl Answer {
    pub(super) fn json<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        serde_json::from_slice(&self.body).context("this client can't read the host's answer")
    }
}

impl Refusal {
    /// Returns whether the content that was sent is at fault, rather than the way or the place it was sent.
    pub(super) fn is_fault_of_the_content(&self) -> bool {
        self.status == 422 || matches!(self.slug(), "invalid-input" | "invalid-body" | "breaks-definitions")
    }

    pub(super) fn print(&self) {
        print::note(format_args!("{} {} ({})", print::label(), self.title, self.status));
        if !self.detail.is_empty() {
            print::note(format_args!("  {}", self.detail));
        }
        for fault in self.errors.iter().filter(|fault| !self.detail.contains(&fault.detail)) {
            match fault.pointer.as_deref().filter(|pointer| !pointer.is_empty()) {
                Some(pointer) => print::note(format_args!("  {pointer}: {}", fault.detail)),
                None => print::note(format_args!("  {}", fault.detail)),
            }
        }
        if !self.slug().is_empty() {
            print::tip(format_args!("see {}{}", self.base, self.kind));
        }
    }

    fn slug(&self) -> &str {
        self.kind.strip_prefix("/problems/").unwrap_or_default()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.title, self.detail)
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_plain_url_or_an_address() {
        let base = |host: &str| Client::new(host, None, None).map(|client| client.base).ok();
        assert_eq!(base("http://localhost:8080/").as_deref(), Some("http://localhost:8080"));
        assert_eq!(base("localhost:8080").as_deref(), Some("http://localhost:8080"));
        assert_eq!(base("https://localhost"), None);
        assert_eq!(base("ftp://localhost"), None);
        assert_eq!(base(""), None);
    }

    #[test]
    fn parts_of_paths_are_encoded() {
        assert_eq!(encode("a.b-c_d~e"), "a.b-c_d~e");
        assert_eq!(encode("a/b c?ü"), "a%2Fb%20c%3F%C3%BC");
    }
}

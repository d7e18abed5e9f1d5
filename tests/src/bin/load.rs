//! The clients of `cargo xtask bench saga`. Each sends a request, waits for the answer and sends the next.
//!
//! The program has one thread and does as little work for a request as possible, because the host that is measured runs
//! on the same machine. It prints one JSON object.

#![expect(clippy::print_stdout, reason = "its result is what it is for")]

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

#[derive(Clone, Parser)]
struct Arguments {
    /// Address of the host
    #[arg(long)]
    address: String,
    /// Path to which the bodies are sent by POST
    #[arg(long)]
    path: String,
    /// Body of the requests: `{n}` becomes the request's number, `{product}` the number modulo --products, `{payment}`
    /// what --declined makes of it
    #[arg(long)]
    body: String,
    #[arg(long, default_value_t = 1)]
    products: u64,
    /// How many of a hundred orders are declined
    #[arg(long, default_value_t = 0)]
    declined: u64,
    /// Number of the first request
    #[arg(long, default_value_t = 0)]
    first: u64,
    #[arg(long)]
    concurrency: u64,
    #[arg(long)]
    seconds: f64,
}

type Failure = Box<dyn Error + Send + Sync>;

/// The results of one client.
#[derive(Default)]
struct Seen {
    taken: Vec<Duration>,
    statuses: BTreeMap<String, u64>,
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let began = Instant::now();
        let until = began + Duration::from_secs_f64(arguments.seconds);
        let clients: Vec<_> = (0..arguments.concurrency)
            .map(|client| tokio::spawn(send(arguments.clone(), client, until)))
            .collect();
        let mut all = Seen::default();
        for client in clients {
            let seen = client.await??;
            all.taken.extend(seen.taken);
            for (status, n) in seen.statuses {
                *all.statuses.entry(status).or_default() += n;
            }
        }
        let elapsed = began.elapsed();
        all.taken.sort_unstable();
        let percentile = |of: f64| {
            let last = all.taken.len().saturating_sub(1);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
            let index = (last as f64 * of).round() as usize;
            all.taken.get(index).map_or(0.0, |taken| taken.as_secs_f64() * 1_000.0)
        };
        println!(
            "{}",
            json!({
                "runs": all.taken.len(),
                "seconds": elapsed.as_secs_f64(),
                "p50_ms": percentile(0.5),
                "p99_ms": percentile(0.99),
                "p999_ms": percentile(0.999),
                "max_ms": percentile(1.0),
                "statuses": all.statuses,
            })
        );
        Ok(())
    })
}

/// Runs one client.
async fn send(arguments: Arguments, client: u64, until: Instant) -> Result<Seen, Failure> {
    let mut stream = TcpStream::connect(&arguments.address).await?;
    stream.set_nodelay(true)?;
    let mut seen = Seen::default();
    let mut answer = Vec::with_capacity(16 << 10);
    let mut n = arguments.first + client;
    while Instant::now() < until {
        let body = arguments
            .body
            .replace("{n}", &n.to_string())
            .replace("{product}", &(n % arguments.products).to_string())
            .replace(
                "{payment}",
                if n % 100 < arguments.declined { "pm_insufficient_funds" } else { "card" },
            );
        let request = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nPrefer: wait=60\r\nContent-Length: {}\r\n\r\n{body}",
            arguments.path,
            arguments.address,
            body.len(),
        );
        let sent = Instant::now();
        stream.write_all(request.as_bytes()).await?;
        answer.clear();
        let end = loop {
            if let Some(end) = complete(&answer)? {
                break end;
            }
            if stream.read_buf(&mut answer).await? == 0 {
                return Err("the host closed a connection".into());
            }
        };
        seen.taken.push(sent.elapsed());
        let text = String::from_utf8_lossy(&answer[..end]);
        let status = text.split_once(r#""status":""#).and_then(|(_, rest)| rest.split('"').next());
        let status = status.ok_or_else(|| format!("unexpected answer: {text}"))?;
        match seen.statuses.get_mut(status) {
            Some(n) => *n += 1,
            None => _ = seen.statuses.insert(status.to_owned(), 1),
        }
        n += arguments.concurrency;
    }
    Ok(seen)
}

/// Returns where the answer ends, if all of it has arrived.
fn complete(answer: &[u8]) -> Result<Option<usize>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(answer)? else { return Ok(None) };
    if response.code != Some(200) {
        return Err(format!("the host answered {}", String::from_utf8_lossy(answer)).into());
    }
    let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length: usize = std::str::from_utf8(length.ok_or("an answer without a length")?.value)?.parse()?;
    Ok((answer.len() >= head + length).then_some(head + length))
}

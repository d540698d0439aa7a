//! The extension's side of Beamline's wire contract, over the official NATS client.
//!
//! What runs: one thread. Each request becomes a task, at most `CONCURRENCY` of them at work and `BACKLOG` more
//! waiting. Before the work the deadline is checked; when it passes, the work is dropped where it stands. Each
//! request gets exactly one answer. On SIGTERM: no more requests, finish what was taken, then leave.

use std::cell::Cell;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectOptions, HeaderMap, Message};
use futures_util::{FutureExt, StreamExt};
use serde_json::{json, Map, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{signal, Signal, SignalKind};
use tokio::sync::{watch, Semaphore};
use tokio::task::{JoinSet, LocalSet};

use crate::stream::{cancelled, Sender};
use crate::wire::{encode, env, log, remaining, too_deep, trace_of, Failure};

const CONCURRENCY: usize = 256;
const BACKLOG: usize = 1024;
const GRACE: Duration = Duration::from_secs(25);
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What an author writes.
pub trait Extension: 'static {
    type Config;
    const ID: &'static str;
    const KIND: &'static str;
    const SUBJECT: &'static str;
    const SCHEMA: &'static str;

    fn config(given: &Map<String, Value>) -> Result<Self::Config, String>;
    async fn handle(request: &Request, config: &Self::Config) -> Result<Value, Failure>;
    async fn stream(request: &Request, config: &Self::Config, to: &mut Sender) -> Result<Value, Failure>;
}

/// One call; `prompt` or `messages` is there, and all fields have the types of the contract.
pub struct Request {
    body: Map<String, Value>,
    started: Instant,
}

impl Request {
    pub fn read(data: &[u8], kind: &str) -> Result<Request, Failure> {
        if too_deep(data) {
            return Err(Failure::malformed("the request is nested too deep"));
        }
        let Ok(Value::Object(mut body)) = serde_json::from_slice::<Value>(data) else {
            return Err(Failure::malformed("the request must be a JSON object"));
        };
        body.retain(|_, value| !value.is_null());
        for (names, what, fits) in FIELDS {
            if let Some(name) = names.iter().find(|name| body.get(**name).is_some_and(|value| !fits(value))) {
                return Err(Failure::malformed(format!("{name} must be {what}")));
            }
        }
        let needed: &[&str] = if kind == "post" { &["output"] } else { &["prompt", "messages"] };
        if !needed.iter().any(|name| body.contains_key(*name)) {
            return Err(Failure::malformed(format!("{} is missing", needed.join(" or "))));
        }
        Ok(Request { body, started: Instant::now() })
    }

    pub fn parameters(&self) -> Option<&Map<String, Value>> {
        self.body.get("parameters")?.as_object()
    }

    /// The prompt, or all texts of the messages.
    pub fn text(&self) -> String {
        if let Some(prompt) = self.body.get("prompt").and_then(Value::as_str) {
            return prompt.into();
        }
        let mut found: Vec<&str> = Vec::new();
        for message in self.body.get("messages").and_then(Value::as_array).into_iter().flatten() {
            match &message["content"] {
                Value::String(text) => found.push(text),
                Value::Array(parts) => found.extend(parts.iter().filter_map(|part| part["text"].as_str())),
                _ => {}
            }
        }
        found.join("\n")
    }

    /// A provider's answer; tokens are counted as bytes divided by 4.
    pub fn reply(&self, output: &str, model: &str) -> Value {
        let (asked, answered) = (self.text().len() / 4, output.len() / 4);
        json!({
            "provider_id": self.body.get("provider_id"),
            "output": output,
            "usage": {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered},
            "metadata": {
                "model": model, "finish_reason": "stop",
                "trace_id": self.body.get("trace_id").and_then(Value::as_str).unwrap_or(""),
                "latency_ms": self.started.elapsed().as_secs_f64() * 1000.0,
            },
        })
    }
}

type Fits = fn(&Value) -> bool;

const FIELDS: [(&[&str], &str, Fits); 3] = [
    (
        &["prompt", "output", "trace_id", "request_id", "tenant_id", "provider_id"],
        "a string",
        Value::is_string,
    ),
    (&["messages"], "a list of objects", |value| {
        value.as_array().is_some_and(|list| list.iter().all(Value::is_object))
    }),
    (&["parameters", "config", "context"], "an object", Value::is_object),
];

/// Serves until SIGTERM or SIGINT, and ends the process.
pub fn run<E: Extension>() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let served =
        runtime.map_err(Into::into).and_then(|runtime| LocalSet::new().block_on(&runtime, serve::<E>()));
    if let Err(error) = served {
        log("extension.failed", E::ID, json!({"error": error.to_string()}));
        std::process::exit(1);
    }
}

struct Server {
    client: Client,
    id: String,
    fallback: Map<String, Value>,
    places: Semaphore,
    requests: Cell<u64>,
}

async fn serve<E: Extension>() -> Result<(), async_nats::Error> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let id = env("BEAMLINE_EXTENSION_ID", E::ID);
    let (up, connected) = watch::channel(false);
    let (ready, serving) = watch::channel(false);
    let port = env("METRICS_PORT", "9090");
    let listener = tokio::net::TcpListener::bind(format!("0.0.0.0:{port}")).await?;
    let mut options = ConnectOptions::new()
        .name(format!("extension {id}"))
        .ping_interval(Duration::from_secs(2))
        .retry_on_initial_connect()
        .event_callback(move |event| {
            match event {
                async_nats::Event::Connected => _ = up.send(true),
                async_nats::Event::Disconnected => _ = up.send(false),
                _ => {}
            }
            std::future::ready(())
        });
    if let Some(file) = std::env::var_os("NATS_CREDENTIALS_FILE").filter(|file| !file.is_empty()) {
        options = options.credentials_file(file).await?;
    }
    let client = options.connect(env("NATS_URL", "nats://127.0.0.1:4222")).await?;
    let fallback = serde_json::from_str(&env("BEAMLINE_CONFIG", "{}"))?;
    let places = Semaphore::new(CONCURRENCY);
    let server = Rc::new(Server { client: client.clone(), id, fallback, places, requests: Cell::new(0) });
    tokio::task::spawn_local(probes(Rc::clone(&server), listener, serving, connected.clone()));
    if !until_connected(connected, &mut term, &mut int).await {
        return Ok(());
    }

    let subject = env("NATS_SUBJECT", E::SUBJECT);
    let group = env("NATS_QUEUE_GROUP", &server.id);
    tokio::task::spawn_local(described::<E>(Rc::clone(&server), subject.clone(), group.clone()));
    let mut messages = client.queue_subscribe(subject.clone(), group).await?;
    client.flush().await?;
    ready.send_replace(true);
    log("extension.ready", &server.id, json!({"subject": subject}));

    let mut work = JoinSet::new();
    let mut draining = false;
    loop {
        tokio::select! {
            message = messages.next() => match message {
                Some(message) => accept::<E>(&server, message, &mut work).await,
                None => break,
            },
            Some(_) = work.join_next() => {}
            () = stopped(&mut term, &mut int), if !draining => {
                draining = true;
                ready.send_replace(false);
                log("extension.draining", &server.id, json!({}));
                messages.drain().await?;
            }
        }
    }
    let _ = tokio::time::timeout(GRACE, async { while work.join_next().await.is_some() {} }).await;
    let _ = tokio::time::timeout(Duration::from_secs(2), client.flush()).await;
    Ok(())
}

async fn stopped(term: &mut Signal, int: &mut Signal) {
    tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
}

async fn until_connected(mut up: watch::Receiver<bool>, term: &mut Signal, int: &mut Signal) -> bool {
    tokio::select! { seen = up.wait_for(|up| *up) => seen.is_ok(), () = stopped(term, int) => false }
}

/// Returns at once; the answer comes from a task.
async fn accept<E: Extension>(server: &Rc<Server>, message: Message, work: &mut JoinSet<()>) {
    server.requests.set(server.requests.get() + 1);
    if message.reply.is_none() {
        return;
    }
    if work.len() >= CONCURRENCY + BACKLOG {
        let mut failure = Failure::new("RESOURCE_EXHAUSTED", "too many requests at once", true);
        failure.retry_after_ms = Some(100);
        server.respond(&message, &Err(failure)).await;
        return;
    }
    let server = Rc::clone(server);
    work.spawn_local(async move {
        let Ok(_place) = server.places.acquire().await else { return };
        let answered = AssertUnwindSafe(server.answer::<E>(&message)).catch_unwind().await;
        if answered.is_err() {
            log("extension.panicked", &server.id, json!({}));
            let failure = Failure::new("INTERNAL", format!("{} failed", server.id), true);
            server.respond(&message, &Err(failure)).await;
        }
    });
}

impl Server {
    async fn answer<E: Extension>(&self, message: &Message) {
        let none = HeaderMap::new();
        let headers = message.headers.as_ref().unwrap_or(&none);
        let (left, request, config) = match self.taken::<E>(headers, message) {
            Ok(taken) => taken,
            Err(failure) => return self.respond(message, &Err(failure)).await,
        };
        let late = || Failure::new("DEADLINE_EXCEEDED", "not done in time", true);
        if headers.get("Beamline-Stream").is_some_and(|value| value.as_str() == "1") {
            if let Some(reply) = message.reply.clone() {
                let window =
                    headers.get("Beamline-Stream-Window").and_then(|value| value.as_str().parse().ok());
                let opened =
                    Sender::open(self.client.clone(), reply, trace_of(headers), window.unwrap_or(0)).await;
                let Ok(mut sender) = opened else { return };
                let gone = sender.left();
                let result = tokio::select! {
                    result = E::stream(&request, &config, &mut sender) => result,
                    () = gone => Err(cancelled()),
                    () = tokio::time::sleep(left) => Err(late()),
                };
                let _ = sender.end(result).await;
            }
            return;
        }
        let result = tokio::time::timeout(left, E::handle(&request, &config)).await;
        self.respond(message, &result.unwrap_or_else(|_| Err(late()))).await;
    }

    fn taken<E: Extension>(
        &self,
        headers: &HeaderMap,
        message: &Message,
    ) -> Result<(Duration, Request, E::Config), Failure> {
        let left = remaining(headers)?;
        let request = Request::read(&message.payload, E::KIND)?;
        let given = request.body.get("config").and_then(Value::as_object).unwrap_or(&self.fallback);
        let config = E::config(given).map_err(|why| {
            Failure::new("INTERNAL", format!("the configuration of {} is not valid: {why}", self.id), true)
        })?;
        Ok((left, request, config))
    }

    async fn respond(&self, message: &Message, result: &Result<Value, Failure>) {
        let Some(reply) = message.reply.clone() else { return };
        let trace = message.headers.as_ref().map(trace_of).unwrap_or_default();
        if self.client.publish_with_headers(reply, trace, encode(result).into()).await.is_err() {
            log("reply.lost", &self.id, json!({}));
        }
    }
}

/// What it says about itself: the NATS services protocol.
async fn described<E: Extension>(server: Rc<Server>, subject: String, group: String) {
    let instance = server.client.new_inbox().replace("_INBOX.", "");
    let metadata = HashMap::from([
        ("beamline.type", E::KIND),
        ("beamline.extension", server.id.as_str()),
        ("beamline.config_schema", E::SCHEMA),
        ("beamline.streams", "true"),
    ]);
    let mut asked = futures_util::stream::SelectAll::new();
    for verb in ["PING", "INFO", "STATS"] {
        for tail in ["".into(), format!(".{}", server.id), format!(".{}.{instance}", server.id)] {
            match server.client.subscribe(format!("$SRV.{verb}{tail}")).await {
                Ok(subscription) => asked.push(subscription),
                Err(_) => return log("service.silent", &server.id, json!({})),
            }
        }
    }
    while let Some(message) = asked.next().await {
        let Some(reply) = message.reply.clone() else { continue };
        let verb = message.subject.split('.').nth(1).unwrap_or_default().to_lowercase();
        let mut said = json!({
            "type": format!("io.nats.micro.v1.{verb}_response"),
            "name": server.id, "id": instance, "version": VERSION, "metadata": metadata,
        });
        if verb != "ping" {
            said["endpoints"] = json!([{
                "name": "handle", "subject": subject, "queue_group": group, "num_requests": server.requests.get(),
            }]);
        }
        let _ = server.client.publish(reply, said.to_string().into()).await;
    }
}

/// `/healthz`, `/readyz` and `/metrics`, one request to a connection.
async fn probes(
    server: Rc<Server>,
    listener: tokio::net::TcpListener,
    ready: watch::Receiver<bool>,
    up: watch::Receiver<bool>,
) {
    while let Ok((mut connection, _)) = listener.accept().await {
        let (server, ready, up) = (Rc::clone(&server), ready.clone(), up.clone());
        tokio::task::spawn_local(tokio::time::timeout(Duration::from_secs(5), async move {
            let mut head = [0; 1024];
            let length = connection.read(&mut head).await.unwrap_or(0);
            let path = String::from_utf8_lossy(&head[..length]).split(' ').nth(1).unwrap_or("").to_owned();
            let (status, body) = match path.as_str() {
                "/healthz" => ("200 OK", String::new()),
                "/readyz" if *ready.borrow() && *up.borrow() => ("200 OK", String::new()),
                "/readyz" => ("503 Service Unavailable", String::new()),
                "/metrics" => ("200 OK", server.metrics()),
                _ => ("404 Not Found", String::new()),
            };
            let reply = format!(
                "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = connection.write_all(reply.as_bytes()).await;
        }));
    }
}

impl Server {
    fn metrics(&self) -> String {
        format!(
            "# TYPE beamline_runtime_requests_total counter\nbeamline_runtime_requests_total{{extension_id=\"{}\"}} {}\n",
            self.id,
            self.requests.get()
        )
    }
}

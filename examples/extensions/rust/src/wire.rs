//! What is on the wire: deadlines, trace context, failures, and what is no request.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::HeaderMap;
use serde_json::{json, Value};

const MAX_REPLY_BYTES: usize = 1024 * 1024 - 4096;
const MAX_DEPTH: usize = 32;
const MAX_DEADLINE_MS: f64 = 600_000.0;

/// An error of the contract's closed list. The message reaches the caller: no payload, no key in it.
#[derive(Debug)]
pub struct Failure {
    pub code: &'static str,
    pub message: String,
    pub retryable: bool,
    pub retry_after_ms: Option<u64>,
}

impl Failure {
    pub fn new(code: &'static str, message: impl Into<String>, retryable: bool) -> Failure {
        Failure { code, message: message.into(), retryable, retry_after_ms: None }
    }

    pub fn malformed(message: impl Into<String>) -> Failure {
        Failure::new("INVALID_ARGUMENT", message, false)
    }

    pub fn to_value(&self) -> Value {
        let mut error = json!({"code": self.code, "message": self.message, "retryable": self.retryable});
        if let Some(ms) = self.retry_after_ms {
            error["retry_after_ms"] = json!(ms);
        }
        json!({ "error": error })
    }
}

/// The earlier of the two deadlines: one needs no common clock, the other sees time spent in a buffer.
pub fn remaining(headers: &HeaderMap) -> Result<Duration, Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1000.0;
    let mut left = MAX_DEADLINE_MS;
    for (name, from) in [("Beamline-Deadline-Ms", 0.0), ("Beamline-Deadline-At", now)] {
        if let Some(text) = headers.get(name) {
            match text.as_str().parse::<f64>() {
                Ok(stated) if !stated.is_nan() => left = left.min(stated - from),
                _ => return Err(Failure::malformed(format!("{name} must be a number of milliseconds"))),
            }
        }
    }
    if left <= 0.0 {
        return Err(Failure::new(
            "DEADLINE_EXCEEDED",
            "the deadline had passed before the work began",
            false,
        ));
    }
    Ok(Duration::from_secs_f64(left / 1000.0))
}

/// The request's trace context, for every message that answers it.
pub fn trace_of(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for name in ["traceparent", "tracestate"] {
        if let Some(value) = headers.get(name).map(|value| value.as_str()) {
            if value.len() <= 512 && value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
                kept.insert(name, value);
            }
        }
    }
    kept
}

/// The bytes of a reply; one that is too large for the bus is an error in its place.
pub fn encode(reply: &Result<Value, Failure>) -> Vec<u8> {
    let data = match reply {
        Ok(value) => value.to_string(),
        Err(failure) => failure.to_value().to_string(),
    };
    if data.len() <= MAX_REPLY_BYTES {
        return data.into_bytes();
    }
    Failure::new("INTERNAL", "the answer is larger than 1 MiB", false).to_value().to_string().into_bytes()
}

/// Whether JSON is nested deeper than the contract allows; asked before it is parsed.
pub fn too_deep(data: &[u8]) -> bool {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for byte in data {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

pub fn env(name: &str, otherwise: &str) -> String {
    std::env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| otherwise.into())
}

/// One line of the log. No payload belongs into it.
pub fn log(event: &str, extension: &str, more: Value) {
    let mut line = json!({"event": event, "extension_id": extension});
    if let (Some(line), Some(more)) = (line.as_object_mut(), more.as_object()) {
        line.extend(more.clone());
    }
    eprintln!("{line}");
}

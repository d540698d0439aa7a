//! Hello rust: what it does. How it is asked and answers is in `beamline.rs`.

mod beamline;
mod stream;
mod wire;

use std::time::Duration;

use serde_json::{json, Map, Value};

use beamline::{Extension, Request};
use stream::Sender;
use wire::Failure;

/// The `config` of the custom resource. Every request carries the current one.
pub struct Config {
    latency_ms: f64,
    greeting: String,
}

/// Published, and the operator checks custom resources against it.
const SCHEMA: &str = r#"{
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "latency_ms": {"type": "number", "minimum": 0, "description": "Pretended work, milliseconds."},
    "greeting": {"type": "string", "description": "Put before the answer."}
  }
}"#;

impl Config {
    /// Reads it field by field. What is wrong is named by its field, never by its value.
    fn read(given: &Map<String, Value>) -> Result<Config, String> {
        let mut config = Config { latency_ms: 0.0, greeting: "You said: ".into() };
        for (name, value) in given {
            match (name.as_str(), value) {
                ("latency_ms", Value::Number(ms)) if ms.as_f64().is_some_and(|ms| ms >= 0.0) => {
                    config.latency_ms = ms.as_f64().unwrap_or_default();
                }
                ("greeting", Value::String(text)) => config.greeting.clone_from(text),
                ("latency_ms", _) => return Err("latency_ms must be a number of 0 or more".into()),
                ("greeting", _) => return Err("greeting must be a string".into()),
                _ => return Err("it has an unknown field".into()),
            }
        }
        Ok(config)
    }
}

struct Hello;

impl Extension for Hello {
    type Config = Config;
    const ID: &'static str = "hello_rust";
    const KIND: &'static str = "provider";
    const SUBJECT: &'static str = "beamline.provider.hello_rust.v1";
    const SCHEMA: &'static str = SCHEMA;

    fn config(given: &Map<String, Value>) -> Result<Config, String> {
        Config::read(given)
    }

    /// Answers one request; it is dropped where it stands when the deadline has passed.
    async fn handle(request: &Request, config: &Config) -> Result<Value, Failure> {
        pretend(request, config).await?;
        Ok(request.reply(&format!("{}{}", config.greeting, request.text()), "hello_rust-1"))
    }

    /// Answers in parts; each `send` waits until the reader has room.
    async fn stream(request: &Request, config: &Config, to: &mut Sender) -> Result<Value, Failure> {
        pretend(request, config).await?;
        let output = format!("{}{}", config.greeting, request.text());
        for part in output.split_inclusive(' ') {
            to.send(json!({ "delta": part })).await?;
        }
        Ok(request.reply(&output, "hello_rust-1"))
    }
}

/// Stands for the work: replace it by yours.
async fn pretend(request: &Request, config: &Config) -> Result<(), Failure> {
    let asked = request.parameters().and_then(|p| p.get("latency_ms")).and_then(Value::as_f64);
    let ms = asked.unwrap_or(config.latency_ms);
    if !(0.0..=600_000.0).contains(&ms) {
        return Err(Failure::malformed("latency_ms must be 0 to 600000"));
    }
    if ms > 0.0 {
        tokio::time::sleep(Duration::from_secs_f64(ms / 1000.0)).await;
    }
    Ok(())
}

fn main() {
    beamline::run::<Hello>();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(given: Value) -> Result<Config, String> {
        Config::read(given.as_object().expect("an object"))
    }

    fn asked(body: Value) -> Request {
        Request::read(body.to_string().as_bytes(), "provider").expect("a request")
    }

    #[tokio::test]
    async fn it_uses_its_configuration() {
        let config = config(json!({"greeting": "Hi, "})).expect("valid");
        let reply = Hello::handle(&asked(json!({"prompt": "you"})), &config).await.expect("answered");
        assert_eq!(reply["output"], "Hi, you");
    }

    #[test]
    fn it_refuses_an_unknown_field_and_a_wrong_type() {
        assert!(config(json!({"nonsense": 1})).is_err());
        assert!(config(json!({"greeting": 7})).is_err_and(|why| why.starts_with("greeting")));
    }

    #[test]
    fn it_is_no_request() {
        for data in
            [&b"not JSON"[..], b"[]", b"{}", br#"{"prompt": 7}"#, br#"{"prompt": "x", "messages": 7}"#]
        {
            assert!(Request::read(data, "provider").is_err());
        }
        assert!(
            Request::read(format!("{}{}", "[".repeat(40), "]".repeat(40)).as_bytes(), "provider").is_err()
        );
    }
}

//! The sending end of a stream: an opening message, numbered chunks within the reader's window, one end.

use async_nats::{Client, HeaderMap, Subject};
use futures_util::StreamExt;
use serde_json::Value;
use tokio::sync::watch;

use crate::wire::{encode, Failure};

/// What the reader has said so far.
#[derive(Clone, Copy, Default)]
struct Heard {
    read: u64,
    left: bool,
}

/// One stream. Without room in the reader's window, `send` waits.
pub struct Sender {
    client: Client,
    reply: Subject,
    trace: HeaderMap,
    window: u64,
    sequence: u64,
    heard: watch::Receiver<Heard>,
    listening: tokio::task::JoinHandle<()>,
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Sender {
    /// Opens it: the reader learns where it can say what it has read.
    pub async fn open(
        client: Client,
        reply: Subject,
        trace: HeaderMap,
        window: u64,
    ) -> Result<Sender, Failure> {
        let control = client.new_inbox();
        let mut messages = client.subscribe(control.clone()).await.map_err(lost)?;
        let (tell, heard) = watch::channel(Heard::default());
        let listening = tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                let Ok(said) = serde_json::from_slice::<Value>(&message.payload) else { continue };
                tell.send_modify(|heard| {
                    heard.read = heard.read.max(said["read"].as_u64().unwrap_or(0));
                    heard.left |= said["cancel"].as_bool().unwrap_or(false);
                });
            }
        });
        let mut sender = Sender { client, reply, trace, window, sequence: 0, heard, listening };
        sender.message(b"{}".to_vec(), Some(("Beamline-Stream-Control", &control))).await?;
        Ok(sender)
    }

    /// Sends one chunk. Fails when the reader has left.
    pub async fn send(&mut self, chunk: Value) -> Result<(), Failure> {
        loop {
            let heard = *self.heard.borrow_and_update();
            if heard.left {
                return Err(cancelled());
            }
            if self.window == 0 || self.sequence <= self.window + heard.read {
                break;
            }
            self.heard.changed().await.map_err(lost)?;
        }
        self.message(chunk.to_string().into_bytes(), None).await
    }

    /// Waits until the reader leaves; for ever where it stays.
    pub fn left(&self) -> impl std::future::Future<Output = ()> {
        let mut heard = self.heard.clone();
        async move {
            if heard.wait_for(|heard| heard.left).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The last message: usage and finish reason, or what went wrong.
    pub async fn end(mut self, result: Result<Value, Failure>) -> Result<(), Failure> {
        let result = result.map(|mut reply| {
            if let Some(reply) = reply.as_object_mut() {
                reply.remove("output");
            }
            reply
        });
        self.message(encode(&result), Some(("Beamline-Stream-End", "1"))).await
    }

    async fn message(&mut self, body: Vec<u8>, more: Option<(&str, &str)>) -> Result<(), Failure> {
        let mut headers = self.trace.clone();
        headers.insert("Beamline-Stream-Sequence", self.sequence.to_string());
        if let Some((name, value)) = more {
            headers.insert(name, value);
        }
        self.sequence += 1;
        self.client.publish_with_headers(self.reply.clone(), headers, body.into()).await.map_err(lost)
    }
}

pub fn cancelled() -> Failure {
    Failure::new("CANCELLED", "the caller left", false)
}

fn lost<E>(_: E) -> Failure {
    Failure::new("UNAVAILABLE", "the connection is lost", true)
}

//! The simulator's control endpoint, spoken to in the little HTTP/1.1 that it takes: one request per connection.

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Why the simulator did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the simulator does not answer")]
    Io(#[from] std::io::Error),
    #[error("the simulator refused: {0}")]
    Refused(String),
    #[error("the simulator's reply cannot be read")]
    Malformed,
}

/// Drives one simulator.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    address: String,
}

impl Control {
    pub(crate) fn new(address: &str) -> Self {
        Self { address: address.to_owned() }
    }

    /// Adds a fault, as `docs/simulator.md` writes it.
    ///
    /// # Errors
    /// [`Error`].
    pub(crate) async fn fault(&self, fault: &Value) -> Result<(), Error> {
        self.call("POST", "/_sim/faults", &fault.to_string()).await.map(drop)
    }

    /// Takes every fault away.
    ///
    /// # Errors
    /// [`Error`].
    pub(crate) async fn heal(&self) -> Result<(), Error> {
        self.call("DELETE", "/_sim/faults", "").await.map(drop)
    }

    /// The number of the newest request.
    ///
    /// # Errors
    /// [`Error`].
    pub(crate) async fn newest(&self) -> Result<u64, Error> {
        let journal = self.call("GET", "/_sim/journal", "").await?;
        journal.get("next").and_then(Value::as_u64).ok_or(Error::Malformed)
    }

    /// The requests behind number `since`, once there are at least `wait` of them.
    ///
    /// # Errors
    /// [`Error`].
    pub(crate) async fn requests(&self, since: u64, wait: u64) -> Result<Vec<Value>, Error> {
        let path = format!("/_sim/journal?since={since}&wait={wait}&timeout_ms=10000");
        let mut journal = self.call("GET", &path, "").await?;
        match journal.get_mut("entries").map(Value::take) {
            Some(Value::Array(entries)) => Ok(entries),
            _ => Err(Error::Malformed),
        }
    }

    async fn call(&self, method: &str, path: &str, body: &str) -> Result<Value, Error> {
        let mut stream = TcpStream::connect(&self.address).await?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).await?;
        let reply = String::from_utf8(reply).map_err(|_| Error::Malformed)?;
        let (head, body) = reply.split_once("\r\n\r\n").ok_or(Error::Malformed)?;
        let status = head.split(' ').nth(1).ok_or(Error::Malformed)?;
        if status != "200" {
            return Err(Error::Refused(body.to_owned()));
        }
        serde_json::from_str(body).map_err(|_| Error::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one request with `reply`; returns what it was asked and what came of it.
    async fn call(reply: &str) -> (String, Result<Vec<Value>, Error>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let control = Control::new(&listener.local_addr().unwrap().to_string());
        let served = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 1024];
            let read = stream.read(&mut request).await.unwrap();
            stream.write_all(reply.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&request[..read]).into_owned()
        };
        tokio::join!(served, control.requests(3, 1))
    }

    #[tokio::test]
    async fn a_reply_is_read_to_its_end() {
        let (request, entries) = call(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{\"entries\":[7],\"next\":4}",
        )
        .await;

        assert!(request.starts_with("GET /_sim/journal?since=3&wait=1&"), "{request}");
        assert_eq!(entries.unwrap(), [7]);
    }

    #[tokio::test]
    async fn a_refusal_says_why() {
        let (_, entries) = call("HTTP/1.1 400 Bad Request\r\n\r\nunknown preset").await;

        assert!(matches!(entries, Err(Error::Refused(why)) if why == "unknown preset"));
    }
}

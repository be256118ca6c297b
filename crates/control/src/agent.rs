//! Asks an agent beside a backend for its line. What the line means is the fleet's to say.

use std::time::Duration;

use relais_core::{AgentOrder, Fault};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::probe::connect;

/// Longest line.
const LINE: usize = 1024;

/// The line the agent sends after a connect: up to its end, or to the end of the connection.
pub(crate) async fn ask(order: &AgentOrder) -> Result<String, Fault> {
    let send = order.check.agent.as_ref().map(|agent| agent.send.as_slice()).unwrap_or_default();
    let asking = converse(order, send, order.timeout);
    relais_attend::within(order.timeout, asking)
        .await
        .unwrap_or_else(|waited| Err(relais_attend::fault(waited, Fault::ResponseTimeout)))
}

async fn converse(order: &AgentOrder, send: &[u8], within: Duration) -> Result<String, Fault> {
    let (mut stream, _) = connect::dial(&order.addresses, within).await.map_err(|trouble| trouble.fault())?;
    if !send.is_empty() {
        stream.write_all(send).await.map_err(|_| Fault::Reset)?;
        stream.flush().await.map_err(|_| Fault::Reset)?;
    }
    let mut line = Vec::new();
    let mut some = [0; 256];
    while line.len() < LINE && !line.contains(&b'\n') {
        match stream.read(&mut some).await {
            Ok(0) => break,
            Ok(read) => line.extend_from_slice(&some[..read]),
            Err(_) if line.is_empty() => return Err(Fault::Reset),
            Err(_) => break,
        }
    }
    if line.is_empty() { Err(Fault::Reset) } else { Ok(String::from_utf8_lossy(&line).into_owned()) }
}

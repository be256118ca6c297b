//! Bytes there, bytes back: for backends that speak a protocol of their own.

use relais_config::Exchange;
use relais_core::Fault;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::connect::Stream;
use super::fault::{self, Phase, Progress};

/// How much of the answer is searched for the expected bytes.
const SEARCHED: usize = 64 * 1024;

/// Sends what is to be sent and reads until what is expected has come.
pub(super) async fn converse(mut stream: Stream, check: &Exchange, progress: &Progress) -> Result<(), Fault> {
    send(&mut stream, &check.send).await?;
    if check.expect.is_empty() {
        return Ok(());
    }
    let mut heard: Vec<u8> = Vec::new();
    let mut some = [0; 4096];
    loop {
        let read = stream.read(&mut some).await.map_err(|error| fault::of_stream(&error))?;
        if read == 0 {
            return Err(if heard.is_empty() { Fault::Reset } else { Fault::BodyMismatch });
        }
        heard.extend_from_slice(&some[..read]);
        if heard.windows(check.expect.len()).any(|window| window == check.expect) {
            return Ok(());
        }
        progress.reach(Phase::Hearing);
        progress.say(&heard);
        if heard.len() >= SEARCHED {
            return Err(Fault::BodyMismatch);
        }
    }
}

/// Sends bytes, if there are any.
pub(super) async fn send(stream: &mut Stream, bytes: &[u8]) -> Result<(), Fault> {
    if bytes.is_empty() {
        return Ok(());
    }
    stream.write_all(bytes).await.map_err(|error| fault::of_stream(&error))?;
    stream.flush().await.map_err(|error| fault::of_stream(&error))
}

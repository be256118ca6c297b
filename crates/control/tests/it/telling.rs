//! What people read in the log: one line per change, with the evidence in fields.

use std::io::Write;
use std::sync::{Arc, Mutex};

use relais_core::Health;
use serde_json::Value;
use tokio::net::TcpListener;
use tracing_subscriber::fmt::MakeWriter;

use crate::support::{Bench, HEAD, own_ip};

/// A log that is kept.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Kept {
    type Writer = Kept;
    fn make_writer(&'a self) -> Kept {
        self.clone()
    }
}

impl Kept {
    fn lines(&self) -> Vec<Value> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn find(&self, message: &str) -> Vec<Value> {
        self.lines().into_iter().filter(|line| line["fields"]["message"] == message).collect()
    }
}

#[tokio::test]
async fn a_death_and_a_return_are_one_line_each_with_the_evidence() {
    let kept = Kept::default();
    let subscriber = tracing_subscriber::fmt().json().with_writer(kept.clone()).finish();
    // The bench runs on this thread alone, so it is enough to listen here.
    let _listening = tracing::subscriber::set_default(subscriber);
    // It comes back at the same port, which nobody takes meanwhile.
    let listener = TcpListener::bind((own_ip(), 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let text = format!(
        "{HEAD}[service.api]\nhosts = [\"a.fr\"]\nfailover_within = \"300ms\"\nbackends = [\"{address}\", \"{}\"]\n",
        other.local_addr().unwrap()
    );
    let bench = Bench::start(&text).await;
    let is = |health: Health| move |s: &relais_control::Status| s.report.services[0].backends[0].health == health;
    bench.until("up", is(Health::Up)).await;
    drop(listener);
    bench.until("down", is(Health::Down)).await;
    let down = kept.find("backend down");
    assert_eq!(down.len(), 1, "{down:?}");
    assert_eq!(down[0]["level"], "WARN");
    let fields = &down[0]["fields"];
    assert_eq!((fields["service"].as_str(), fields["site"].as_str()), (Some("api"), Some("default")));
    assert_eq!(fields["backend"].as_str(), Some(address.to_string().as_str()));
    assert_eq!(fields["to"].as_str(), Some("down"));
    assert!(fields["why"].as_str().unwrap().contains("refused"), "{fields}");
    assert!(fields["after_ms"].is_u64(), "{fields}");

    let _back = TcpListener::bind(address).await.unwrap();
    bench.until("back", is(Health::Up)).await;
    let up = kept.find("backend up");
    assert!(up.iter().any(|line| line["level"] == "INFO" && line["fields"]["from"] == "down"), "{up:?}");

    bench.handle.admin("default", relais_core::Admin::Draining, Some("works".to_string())).await.unwrap();
    let said = kept.find("operator: default draining");
    assert_eq!(said.len(), 1, "{:?}", kept.lines());
    assert_eq!(said[0]["fields"]["reason"], "works");
    assert!(!kept.find("service has no backend left").is_empty(), "{:?}", kept.lines());
    bench.stop().await;
}

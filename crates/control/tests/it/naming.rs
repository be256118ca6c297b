//! Names of backends, against a name server whose answers the test makes.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use hickory_resolver::proto::serialize::binary::BinDecodable;
use relais_control::Status;
use relais_core::{BackendReport, Health};
use tokio::net::UdpSocket;

use crate::probing::backend;
use crate::support::{Bench, HEAD};

/// Addresses and their time in seconds, by name. A name without addresses does not exist.
type Zone = HashMap<&'static str, (Vec<IpAddr>, u32)>;

/// A name server.
#[derive(Clone)]
struct Server {
    address: SocketAddr,
    zone: Arc<Mutex<Option<Zone>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start() -> Server {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let server = Server { address, zone: Arc::new(Mutex::new(Some(Zone::new()))), asked: Arc::default() };
        let serving = server.clone();
        tokio::spawn(async move {
            let mut packet = [0; 1500];
            while let Ok((read, peer)) = socket.recv_from(&mut packet).await {
                if let Some(answer) = serving.answer(&packet[..read]) {
                    let _ = socket.send_to(&answer, peer).await;
                }
            }
        });
        server
    }

    fn answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        let question = Message::from_bytes(question).unwrap();
        let query = question.queries.first()?.clone();
        let name = query.name().to_utf8().trim_end_matches('.').to_owned();
        self.asked.lock().unwrap().push(name.clone());
        let zone = self.zone.lock().unwrap();
        let found = zone.as_ref()?.get(name.as_str());
        let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
        answer.add_query(query.clone());
        match found {
            None => answer.metadata.response_code = ResponseCode::NXDomain,
            Some((addresses, seconds)) => {
                let data = addresses.iter().filter_map(|ip| match (ip, query.query_type()) {
                    (IpAddr::V4(ip), RecordType::A) => Some(RData::A((*ip).into())),
                    (IpAddr::V6(ip), RecordType::AAAA) => Some(RData::AAAA((*ip).into())),
                    _ => None,
                });
                answer.add_answers(data.map(|data| Record::from_rdata(query.name().clone(), *seconds, data)));
            }
        }
        Some(answer.to_vec().unwrap())
    }

    /// From now on the name has these addresses.
    fn set(&self, name: &'static str, addresses: &[&str], seconds: u32) {
        let addresses = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
        self.zone.lock().unwrap().get_or_insert_default().insert(name, (addresses, seconds));
    }

    /// From now on it does not answer at all.
    fn fall_silent(&self) {
        *self.zone.lock().unwrap() = None;
    }

    fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn with(server: &Server, backend: &str) -> String {
    format!(
        "[edge]\nnameservers = [\"{}\"]\n{HEAD}[service.api]\nhosts = [\"api.a.fr\"]\nbackends = [\"{backend}\"]\n",
        server.address
    )
}

async fn listening() -> SocketAddr {
    backend(|stream| async move { drop(stream) }).await
}

fn first(status: &Status) -> &BackendReport {
    &status.report.services[0].backends[0]
}

fn addresses(status: &Status) -> Vec<String> {
    first(status).addresses.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_name_is_resolved_again_when_its_answer_is_old() {
    let server = Server::start().await;
    let port = listening().await.port();
    server.set("app_1.internal", &["127.0.0.1"], 1);
    let bench = Bench::start(&with(&server, &format!("app_1.internal:{port}"))).await;
    let status = bench.until("it is up", |status| first(status).health == Health::Up).await;
    assert_eq!(addresses(&status), [format!("127.0.0.1:{port}")]);
    server.set("app_1.internal", &["127.0.0.3", "::1", "127.0.0.1"], 1);
    let moved = |status: &Status| addresses(status).len() == 3;
    let status = bench.until("the new answer is in use", moved).await;
    let expected = [format!("127.0.0.1:{port}"), format!("127.0.0.3:{port}"), format!("[::1]:{port}")];
    assert_eq!(addresses(&status), expected);
    let published = bench.snapshot.load().pools[0].members[0].addresses.clone();
    assert_eq!(published.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "workers have it, too");
    bench.stop().await;
}

#[tokio::test]
async fn an_answer_is_used_as_long_as_it_says() {
    let server = Server::start().await;
    let port = listening().await.port();
    server.set("app.internal", &["127.0.0.1"], 30);
    let bench = Bench::start(&with(&server, &format!("app.internal:{port}"))).await;
    bench.until("it is up", |status| first(status).health == Health::Up).await;
    let asked = server.count();
    bench.until("ten more probes", |status| first(status).probes.len() == 10).await;
    assert_eq!(server.count(), asked, "probes do not resolve");
    bench.stop().await;
}

#[tokio::test]
async fn the_last_good_answer_outlives_the_name_server() {
    let server = Server::start().await;
    let port = listening().await.port();
    server.set("app.internal", &["127.0.0.1"], 1);
    let bench = Bench::start(&with(&server, &format!("app.internal:{port}"))).await;
    bench.until("it is up", |status| first(status).health == Health::Up).await;
    server.fall_silent();
    let status = bench.until("it is seen", |status| first(status).unresolved.is_some()).await;
    assert_eq!((first(&status).health, addresses(&status)), (Health::Up, vec![format!("127.0.0.1:{port}")]));
    // A name that was taken out is no different.
    *server.zone.lock().unwrap() = Some(Zone::new());
    let gone = |status: &Status| first(status).unresolved.as_deref() == Some("no such name");
    let status = bench.until("the name is gone", gone).await;
    assert_eq!(first(&status).health, Health::Up);
    bench.stop().await;
}

#[tokio::test]
async fn a_name_that_comes_late_is_used_when_it_comes() {
    let server = Server::start().await;
    let port = listening().await.port();
    let bench = Bench::start(&with(&server, &format!("late.internal:{port}"))).await;
    let status = bench.until("it is down", |status| first(status).health == Health::Down).await;
    assert_eq!(first(&status).why, "name does not resolve: no such name");
    server.set("late.internal", &["127.0.0.1"], 30);
    bench.until("it is up", |status| first(status).health == Health::Up).await;
    bench.stop().await;
}

#[tokio::test]
async fn other_name_servers_are_asked_after_a_reload() {
    let (old, new) = (Server::start().await, Server::start().await);
    let port = listening().await.port();
    old.set("app.internal", &["127.0.0.1"], 3600);
    new.set("app.internal", &["127.0.0.5"], 3600);
    let backend = format!("app.internal:{port}");
    let bench = Bench::start(&with(&old, &backend)).await;
    bench.until("it is up", |status| first(status).health == Health::Up).await;
    bench.write(&with(&new, &backend));
    let moved = |status: &Status| addresses(status) == [format!("127.0.0.5:{port}")];
    bench.until("the new server's answer is in use", moved).await;
    bench.stop().await;
}

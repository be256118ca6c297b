//! gRPC with a peer that is not ours on both ends: Debian's python3-grpcio, TLS to the edge, plain HTTP/2 behind it.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::edge::Setup;
use crate::support::tools::{have, run, skipped};
use crate::support::{free_address, wait_for};

const PEER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/program/grpc_peer.py");

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn python() -> Command {
    Command::new("/usr/bin/python3")
}

fn has_grpc() -> bool {
    if !Path::new("/usr/bin/python3").exists() {
        return have("python3", "python3");
    }
    let there = run(python().args(["-c", "import grpc"])).code == Some(0);
    if !there {
        skipped("needs Debian package python3-grpcio");
    }
    there
}

#[test]
fn grpc_calls_of_every_kind_go_through() {
    if !has_grpc() {
        return;
    }
    let address = free_address();
    let mut serve = python();
    serve.args([PEER, "serve", &address.to_string()]).stdin(Stdio::piped()).stdout(Stdio::null());
    let _server = Server(serve.spawn().unwrap());
    wait_for("the gRPC server listens", || std::net::TcpStream::connect(address).is_ok());
    let edge = Setup::services(&format!(
        "[service.grpc]\nhosts = [\"grpc.localhost\"]\nhealth = \"off\"\nbackends = [\"{address}\"]\nupstream.protocol = \"h2c\"\n"
    ))
    .secure()
    .start();
    let ran = run(python().args([PEER, "ask", &edge.https().to_string(), edge.root().to_str().unwrap()]));
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    let said: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(
        said,
        [
            "unary: hello world, trailer bye",
            "large: 2000000",
            "server streaming: 0 1 2 3 4 5 6 7 8 9, trailer 10",
            "client streaming: 45",
            "bidirectional, one by one: 0 1 4 9 16",
            "status: NOT_FOUND no such thing",
            "deadline: DEADLINE_EXCEEDED",
            "unknown method: UNIMPLEMENTED",
        ]
    );
}

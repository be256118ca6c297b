//! A name server for one name, whose answer the test changes.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use hickory_resolver::proto::serialize::binary::BinDecodable;

/// Says where every name leads; nowhere: there is no such name.
pub(crate) struct Dns {
    pub(crate) address: SocketAddr,
    leads_to: Arc<Mutex<Option<IpAddr>>>,
}

impl Dns {
    pub(crate) fn start(leads_to: Option<IpAddr>) -> Dns {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let dns = Dns { address, leads_to: Arc::new(Mutex::new(leads_to)) };
        let current = Arc::clone(&dns.leads_to);
        std::thread::spawn(move || {
            let mut packet = [0; 1500];
            while let Ok((read, peer)) = socket.recv_from(&mut packet) {
                let answer = answer(&packet[..read], *current.lock().unwrap());
                let _ = socket.send_to(&answer, peer);
            }
        });
        dns
    }

    pub(crate) fn lead_to(&self, ip: IpAddr) {
        *self.leads_to.lock().unwrap() = Some(ip);
    }
}

fn answer(question: &[u8], leads_to: Option<IpAddr>) -> Vec<u8> {
    let question = Message::from_bytes(question).unwrap();
    let query = question.queries[0].clone();
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.add_query(query.clone());
    match leads_to {
        None => answer.metadata.response_code = ResponseCode::NXDomain,
        Some(IpAddr::V4(ip)) if query.query_type() == RecordType::A => {
            answer.add_answer(Record::from_rdata(query.name().clone(), 1, RData::A(ip.into())));
        }
        Some(_) => {}
    }
    answer.to_vec().unwrap()
}

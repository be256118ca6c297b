//! A name server that is late: it answers for every TXT name with nothing at first, and with a value later or never.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::{RData, Record, RecordType};

pub(crate) struct Late {
    /// Questions for texts.
    pub(crate) asked: Arc<AtomicUsize>,
}

impl Late {
    /// Shows `value` from the question number `from` for it on. `code` is what it says in any case.
    pub(crate) fn start(at: SocketAddr, value: &'static str, from: usize, code: ResponseCode) -> Self {
        let socket = UdpSocket::bind(at).unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut packet = [0; 1500];
            while let Ok((read, peer)) = socket.recv_from(&mut packet) {
                let question = Message::from_vec(&packet[..read]).unwrap();
                let query = question.queries[0].clone();
                let is_text = query.query_type() == RecordType::TXT;
                let number = counter.load(Ordering::SeqCst) + usize::from(is_text);
                let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
                answer.metadata.authoritative = true;
                answer.metadata.response_code = code;
                if is_text && number >= from {
                    let text = RData::TXT(TXT::new(vec![value.to_owned()]));
                    answer.add_answer(Record::from_rdata(query.name().clone(), 1, text));
                }
                answer.add_query(query);
                // Who has the answer may look at the count at once.
                counter.store(number, Ordering::SeqCst);
                let _ = socket.send_to(&answer.to_vec().unwrap(), peer);
            }
        });
        Late { asked }
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

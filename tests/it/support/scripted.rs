//! A server of a few lines: a script has the reply to each request.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::server::Reach;

/// A server that gives every request the reply of a script, and closes.
pub struct Scripted {
    pub reach: Reach,
    /// The requests so far.
    pub requests: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    /// `script` answers a request with a reply, or with as much of one as is sent.
    pub fn start(script: impl Fn(&str) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let reach = Reach {
            endpoint: format!("http://{}", listener.local_addr().unwrap()),
            access_key: "key".to_owned(),
            secret_key: "secret".to_owned(),
            region: "us-east-1".to_owned(),
        };
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = requests.clone();
        // It ends with the process of the test.
        std::thread::spawn(move || {
            for mut socket in listener.incoming().flatten() {
                let request = whole(&mut socket);
                let reply = script(&request);
                heard.lock().unwrap().push(request);
                socket.write_all(reply.as_bytes()).ok();
            }
        });
        Self { reach, requests }
    }
}

/// Head and body of one request, or of one reply.
pub fn whole(socket: &mut TcpStream) -> String {
    let mut text = vec![];
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") && socket.read(&mut byte).is_ok_and(|n| n > 0) {
        text.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&text).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length = length.map_or(0, |length| length.trim().parse().unwrap());
    std::io::Read::by_ref(socket).take(length).read_to_end(&mut text).ok();
    String::from_utf8_lossy(&text).into_owned()
}

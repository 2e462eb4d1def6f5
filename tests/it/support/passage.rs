//! Stands between a client and a server that checks no signatures, and sees every request before
//! the server does.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use super::server::Reach;

/// The way to a server through here.
pub struct Passage {
    pub reach: Reach,
}

impl Passage {
    /// `sees` is called with the first line of each request; the server gets it afterwards.
    pub fn to(server: &Reach, sees: impl Fn(&str) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let address = server.endpoint.replace("http://", "");
        let sees: Arc<dyn Fn(&str) + Send + Sync> = Arc::new(sees);
        // It ends with the process of the test.
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (address, sees) = (address.clone(), sees.clone());
                std::thread::spawn(move || pass(socket, &address, &*sees));
            }
        });
        Self { reach: Reach { endpoint, ..server.clone() } }
    }
}

/// Passes one request on, and its reply back.
fn pass(mut client: TcpStream, address: &str, sees: &dyn Fn(&str)) -> Option<()> {
    let mut head = vec![];
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let lower = head.to_lowercase();
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length = length.map_or(0, |length| length.trim().parse().unwrap());
    let mut body = vec![];
    std::io::Read::by_ref(&mut client).take(length).read_to_end(&mut body).ok()?;
    let (line, rest) = head.split_once("\r\n").unwrap();
    sees(line);
    let mut server = TcpStream::connect(address).ok()?;
    server.write_all(format!("{line}\r\nConnection: close\r\n{rest}").as_bytes()).ok()?;
    server.write_all(&body).ok()?;
    std::io::copy(&mut server, &mut client).ok().map(drop)
}

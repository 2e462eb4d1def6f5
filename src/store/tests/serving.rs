//! The store on a socket: connections stay, answers have the form of HTTP, and it ends in order.

use aws_sdk_s3::Client;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::{BUCKET, Rig, config, key_pairs, noise, on_loopback};
use crate::store::serve;

/// Reads one answer without a body, up to the empty line.
async fn head_of_answer(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn a_connection_serves_many_requests_and_head_has_no_body() {
    let rig = Rig::new().await;
    let address = on_loopback(&rig.store).await;
    let mut socket = TcpStream::connect(address.strip_prefix("http://").unwrap()).await.unwrap();
    for _ in 0..3 {
        let request = format!("HEAD /{BUCKET}/k HTTP/1.1\r\nHost: localhost\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        // A body would be taken for the head of the next answer.
        let head = head_of_answer(&mut socket).await;
        assert!(head.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{head}");
        assert!(head.contains("x-amz-request-id: "), "{head}");
    }
    socket.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let head = head_of_answer(&mut socket).await;
    assert!(head.contains("content-type: application/xml"), "{head}");
}

#[tokio::test]
async fn the_end_waits_for_answers_and_accepts_no_more() {
    let rig = Rig::new().await;
    let body = noise(1, 32 << 20);
    rig.put("large", &body).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn({
        let store = rig.store.clone();
        async move { serve(store, listener, &key_pairs(), async { drop(stopped.await) }).await }
    });
    let client = Client::from_conf(config(&format!("http://{address}")).build());
    let answer = client.get_object().bucket(BUCKET).key("large").send().await.unwrap();
    stop.send(()).unwrap();
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!serving.is_finished(), "an answer is under way");
    assert!(answer.body.collect().await.unwrap().to_vec() == body);
    serving.await.unwrap();
}

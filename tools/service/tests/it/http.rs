//! The protocol of the socket, as clients see it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use tdvisor_service::http::{
    Access, Answer, Client, FDS_MAX, Limits, Peer, Request, Response, Running, Server, Service,
};

use crate::eventually;

/// Far more than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// Says what it was asked.
struct Echo;

impl Service for Echo {
    fn answer(&self, request: Request, _: Instant) -> Response {
        if request.path == "/nothing" {
            return Answer::DONE.into();
        }
        let inodes: Vec<u64> = request
            .fds
            .into_iter()
            .map(|fd| fs::File::from(fd).metadata().expect("a descriptor has an inode").ino())
            .collect();
        let said = serde_json::json!({
            "method": request.method.as_str(),
            "path": request.path,
            "query": request.query,
            "body": String::from_utf8_lossy(&request.body),
            "inodes": inodes,
            "uid": match request.peer {
                Peer::Local { uid, .. } => Some(uid),
                Peer::Remote(_) => None,
            },
        });
        Answer::json(StatusCode::OK, said.to_string().into_bytes()).into()
    }
}

/// A server in a folder of its own.
struct Place {
    folder: PathBuf,
    server: Option<Running>,
}

impl Place {
    fn new(name: &str, limits: Limits) -> Self {
        let folder = std::env::temp_dir().join(format!("tdvisor-http-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).expect("a folder for the test");
        let server = Server::bind(&folder.join("api"), Access::Owner).expect("a socket");
        Self { server: Some(server.start(limits, Arc::new(Echo)).expect("a server")), folder }
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("api")
    }

    fn client(&self) -> Client {
        Client::connect(&self.socket()).expect("somebody listens")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.server.take());
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// All that comes until the server closes.
fn answer_to(place: &Place, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(place.socket()).expect("somebody listens");
    stream.write_all(bytes).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer and the end");
    answer
}

#[test]
fn one_connection_carries_many_requests() {
    let place = Place::new("many", Limits::default());
    let mut client = place.client();
    for number in 0..100 {
        let body = format!("{number}");
        let reply = client.ask(&Method::PUT, "/a?b=c", Some(body.as_bytes()), LONG).unwrap();
        let said = reply.json().unwrap();
        assert_eq!((reply.status, &said["body"]), (StatusCode::OK, &body.into()));
        assert_eq!((&said["path"], &said["query"]), (&"/a".into(), &"b=c".into()));
        let reply = client.ask(&Method::GET, "/nothing", None, LONG).unwrap();
        assert_eq!((reply.status, reply.body.len()), (StatusCode::NO_CONTENT, 0));
    }
}

#[test]
fn requests_that_come_at_once_are_answered_in_their_order() {
    let place = Place::new("pipeline", Limits::default());
    let one = |path| format!("GET /{path} HTTP/1.1\r\n\r\n");
    let last = "GET /three HTTP/1.1\r\nConnection: close\r\n\r\n";
    let answers = answer_to(&place, format!("{}{}{last}", one("one"), one("two")).as_bytes());
    let at = ["one", "two", "three"].map(|path| answers.find(&format!("\"/{path}\"")));
    assert!(at.is_sorted() && at[0].is_some(), "{answers}");
    assert_eq!(answers.matches("HTTP/1.1 200 ").count(), 3);
}

#[test]
fn whoever_asks_for_a_head_gets_it_and_no_body_that_would_be_taken_for_the_next_answer() {
    let place = Place::new("head", Limits::default());
    let both = "HEAD /one HTTP/1.1\r\n\r\nGET /two HTTP/1.1\r\nConnection: close\r\n\r\n";
    let answers = answer_to(&place, both.as_bytes());
    let (head, rest) = answers.split_once("\r\n\r\n").expect("a head");
    assert!(head.contains("Content-Length: "), "{answers}");
    assert!(rest.starts_with("HTTP/1.1 200 ") && rest.contains("/two"), "{answers}");
}

#[test]
fn whoever_waits_for_leave_to_send_a_body_gets_it() {
    let place = Place::new("leave", Limits::default());
    let mut stream = UnixStream::connect(place.socket()).unwrap();
    stream.write_all(b"PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n").unwrap();
    let mut leave = [0; 17];
    stream.read_exact(&mut leave).unwrap();
    assert_eq!(&leave, b"HTTP/1.1 100 \r\n\r\n");
    stream.write_all(b"ok").unwrap();
    let mut head = [0; 13];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 ");
}

#[test]
fn descriptors_belong_to_the_request_that_they_came_with() {
    let place = Place::new("fds", Limits::default());
    let mut client = place.client();
    let (a, b) = UnixDatagram::pair().unwrap();
    let inodes = [&a, &b].map(|socket| {
        let fd = socket.as_fd().try_clone_to_owned().unwrap();
        fs::File::from(fd).metadata().unwrap().ino()
    });
    let body = vec![b'x'; 300 << 10];
    let reply = client.ask_with_fds(&Method::PUT, "/", Some(&body), &[a.as_fd(), b.as_fd()], LONG).unwrap();
    assert_eq!(reply.json().unwrap()["inodes"], serde_json::json!(inodes));
    let reply = client.ask(&Method::PUT, "/", Some(b"{}"), LONG).unwrap();
    assert_eq!(reply.json().unwrap()["inodes"], serde_json::json!([]));
}

#[test]
fn more_descriptors_than_a_request_may_bring_are_refused_and_closed() {
    let place = Place::new("too-many-fds", Limits::default());
    let mut client = place.client();
    let (a, _b) = UnixDatagram::pair().unwrap();
    let body = vec![b'x'; 3 << 20];
    let most = vec![a.as_fd(); FDS_MAX];
    assert_eq!(client.ask_with_fds(&Method::PUT, "/", Some(&body), &most, LONG).unwrap().status, 200);
    let (head, rest) = ("PUT / HTTP/1.1\r\n", "Content-Length: 0\r\n\r\n");
    send_fds(client.stream(), head.as_bytes(), &most);
    send_fds(client.stream(), rest.as_bytes(), &[a.as_fd()]);
    let mut answer = String::new();
    (&mut client.stream()).read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 \r\n") && answer.contains("[\"too many"), "{answer}");
}

fn send_fds(stream: &UnixStream, bytes: &[u8], fds: &[std::os::fd::BorrowedFd<'_>]) {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    let sent = sendmsg(stream, &[std::io::IoSlice::new(bytes)], &mut control, SendFlags::empty());
    assert_eq!(sent, Ok(bytes.len()));
}

#[test]
fn what_cannot_be_understood_is_refused_in_the_form_of_all_errors() {
    let place = Place::new("refused", Limits::default());
    for (bytes, status) in [
        (&b"\x16\x03\x01\x02\x00\x01"[..], "400 "),
        (b"PUT / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", "413 "),
        (b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", "400 "),
    ] {
        let answer = answer_to(&place, bytes);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
        let sentences: Vec<String> = serde_json::from_str(body).expect("an array of sentences");
        assert_eq!(sentences.len(), 1);
    }
}

#[test]
fn a_request_that_comes_too_slowly_is_refused_and_an_idle_connection_is_not() {
    let limits = Limits { arrival: Duration::from_millis(500), ..Limits::default() };
    let place = Place::new("slow", limits);
    let mut idle = place.client();
    let answer = answer_to(&place, b"GET / HT");
    assert!(answer.starts_with("HTTP/1.1 408 \r\n"), "{answer}");
    assert_eq!(idle.ask(&Method::GET, "/", None, LONG).unwrap().status, StatusCode::OK);
}

#[test]
fn more_connections_than_places_take_those_of_the_idle() {
    let place = Place::new("places", Limits { connections: 2, ..Limits::default() });
    let mut clients: Vec<Client> = (0..8)
        .map(|_| {
            let mut client = place.client();
            client.ask(&Method::GET, "/", None, LONG).expect("whoever comes is served");
            client
        })
        .collect();
    assert!(clients[0].ask(&Method::GET, "/", None, LONG).is_err(), "it has made room");
    assert!(clients[7].ask(&Method::GET, "/", None, LONG).is_ok());
}

#[test]
fn the_socket_is_its_owners_and_gone_at_the_end() {
    let mut place = Place::new("owner", Limits::default());
    let mode = fs::metadata(place.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut client = place.client();
    assert!(client.ask(&Method::GET, "/", None, LONG).is_ok());
    place.server.take().unwrap().stop(LONG);
    assert!(client.ask(&Method::GET, "/", None, LONG).is_err());
    assert!(!place.socket().exists());
    let group = Server::bind(&place.socket(), Access::Group).unwrap();
    assert_eq!(fs::metadata(place.socket()).unwrap().permissions().mode() & 0o777, 0o660);
    drop(group);
}

#[test]
fn only_a_socket_that_nobody_listens_at_is_replaced() {
    let place = Place::new("replaced", Limits::default());
    assert!(Server::bind(&place.socket(), Access::Owner).is_err(), "somebody listens");
    let file = place.folder.join("file");
    fs::write(&file, "kept").unwrap();
    assert!(Server::bind(&file, Access::Owner).is_err());
    assert_eq!(fs::read(&file).unwrap(), b"kept");
    let left = place.folder.join("left");
    drop(UnixListener::bind(&left).unwrap());
    eventually("it can be had", || Server::bind(&left, Access::Owner).is_ok());
}

#[test]
fn a_socket_that_somebody_else_listens_at_is_taken_over() {
    let place = Place::new("inherited", Limits::default());
    let path = place.folder.join("theirs");
    let listener = UnixListener::bind(&path).unwrap();
    let server = Server::inherited(listener.into(), Access::Owner).unwrap();
    let running = server.start(Limits::default(), Arc::new(Echo)).unwrap();
    let mut client = Client::connect(&path).unwrap();
    assert_eq!(client.ask(&Method::GET, "/", None, LONG).unwrap().status, StatusCode::OK);
    running.stop(LONG);
    assert!(path.exists(), "whoever made it removes it");
    let (stream, _other) = UnixStream::pair().unwrap();
    assert!(Server::inherited(stream.into(), Access::Owner).is_err());
}

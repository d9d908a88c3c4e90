//! A TCP proxy that can be cut, slowed, or made deaf.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How the network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    Open,
    /// Every piece of at most 4 KiB takes this long.
    Slow(Duration),
    /// Connections stay, and nothing passes: what a lost cable looks like.
    Deaf,
    /// Connections end, and new ones are refused.
    Cut,
}

struct Shared {
    network: Network,
    target: Option<SocketAddr>,
    open: Vec<TcpStream>,
}

/// A port of its own that leads to another.
pub struct Proxy {
    pub port: u16,
    shared: Arc<Mutex<Shared>>,
}

impl Proxy {
    /// A proxy without a target yet: a broker has to know the port before it starts.
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Mutex::new(Shared { network: Network::Open, target: None, open: Vec::new() }));
        let accepting = Arc::downgrade(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Some(shared) = accepting.upgrade() else { break };
                connect(&client, &shared);
            }
        });
        Self { port, shared }
    }

    /// What a client connects to.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where connections go from now on.
    pub fn lead_to(&self, port: u16) {
        self.shared.lock().unwrap().target = Some(SocketAddr::from(([127, 0, 0, 1], port)));
    }

    /// Makes the network so.
    pub fn set(&self, network: Network) {
        let mut shared = self.shared.lock().unwrap();
        shared.network = network;
        if network == Network::Cut {
            shared.open.drain(..).for_each(|stream| _ = stream.shutdown(Shutdown::Both));
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.set(Network::Cut);
        // The thread that accepts sees that nobody holds the proxy any more.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn connect(client: &TcpStream, shared: &Arc<Mutex<Shared>>) {
    let mut held = shared.lock().unwrap();
    let server = match (held.network, held.target) {
        (Network::Cut, _) | (_, None) => None,
        (_, Some(target)) => TcpStream::connect(target).ok(),
    };
    let Some(server) = server else {
        let _ = client.shutdown(Shutdown::Both);
        return;
    };
    held.open.retain(|stream| stream.peer_addr().is_ok());
    for (from, to) in [(client, &server), (&server, client)] {
        let [from, to, kept] = [from, to, from].map(|stream| stream.try_clone().unwrap());
        held.open.push(kept);
        let shared = Arc::downgrade(shared);
        std::thread::spawn(move || {
            let network = || shared.upgrade().map_or(Network::Cut, |shared| shared.lock().unwrap().network);
            pass(&from, &to, network);
            // Either end ends both.
            let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
        });
    }
}

fn pass(mut from: &TcpStream, mut to: &TcpStream, network: impl Fn() -> Network) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        loop {
            match network() {
                Network::Open => break,
                Network::Slow(time) => break std::thread::sleep(time),
                Network::Deaf => std::thread::sleep(Duration::from_millis(5)),
                Network::Cut => return,
            }
        }
        if to.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

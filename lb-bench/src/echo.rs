//! Payloads to echo servers. Each one differs from those before and from those of other connections, so that an echo that is not its
//! own is noticed.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Poll, ready},
};

use tokio::{io::AsyncWrite, net::UdpSocket};

use crate::{connect::Connector, failure::Failure, stats::Answer, stream::Stream};

/// Echoes of as many payloads before may come late or twice over UDP.
const EARLIER: u32 = 64;
/// Buffer of a datagram: one byte more than the largest, so that too long an echo shows.
const DATAGRAM: usize = 65_508;

/// The payloads of a connection, one after the other.
struct Payload {
    lane: u32,
    number: u32,
    bytes: Vec<u8>,
}

impl Payload {
    fn new(lane: u32, size: usize) -> Self {
        Self {
            lane,
            number: 0,
            bytes: vec![0; size],
        }
    }

    /// The next payload.
    fn next(&mut self) {
        self.number = self.number.wrapping_add(1);
        for (word, chunk) in (0..).zip(self.bytes.chunks_mut(8)) {
            let bytes = payload_word(self.lane, self.number, word).to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }

    /// Whether this is the payload of one of the last numbers, but not of the current one.
    fn is_earlier(&self, echo: &[u8]) -> bool {
        let is = |number| {
            let mut chunks = (0..).zip(echo.chunks(8));
            chunks.all(|(word, chunk)| {
                payload_word(self.lane, number, word)
                    .to_le_bytes()
                    .starts_with(chunk)
            })
        };
        echo.len() == self.bytes.len() && (1..=EARLIER).any(|back| is(self.number.wrapping_sub(back)))
    }
}

/// A word of a payload: the finaliser of MurmurHash3 over its numbers, so that neighbours share no bits.
fn payload_word(lane: u32, number: u32, word: u64) -> u64 {
    let mut mixed = (u64::from(lane) << 32 | u64::from(number)).wrapping_add(word << 48);
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        mixed = (mixed ^ (mixed >> 33)).wrapping_mul(factor);
    }
    mixed ^ (mixed >> 33)
}

/// A connection to a TCP echo server.
pub(crate) struct TcpEcho {
    payload: Payload,
    keepalive: bool,
    stream: Option<Stream>,
}

impl TcpEcho {
    /// A connection with payloads of its own.
    pub(crate) fn new(lane: u32, size: usize, keepalive: bool) -> Self {
        Self {
            payload: Payload::new(lane, size),
            keepalive,
            stream: None,
        }
    }

    /// Opens the connection, unless it is open; tells whether it had to.
    ///
    /// # Errors
    /// The connection's.
    pub(crate) async fn open(&mut self, connector: &Connector) -> Result<bool, Failure> {
        if let Some(stream) = &mut self.stream {
            match stream.unasked()? {
                None => return Ok(false),
                Some(0) => self.close(),
                Some(_) => return Err(Failure::Corrupt),
            }
        }
        self.stream = Some(connector.open().await?);
        Ok(true)
    }

    /// Sends a payload and waits for its echo.
    ///
    /// # Errors
    /// When it does not come as it was sent; the connection must be closed then.
    pub(crate) async fn exchange(&mut self) -> Result<Answer, Failure> {
        let stream = self.stream.as_mut().ok_or(Failure::Closed)?;
        self.payload.next();
        let sent = &self.payload.bytes;
        let (mut written, mut echoed) = (0, 0);
        // At the same time: an echo server whose own sending waits would stop reading.
        poll_fn(|cx| {
            while written < sent.len()
                && let Poll::Ready(sending) = Pin::new(&mut *stream).poll_write(cx, &sent[written..])
            {
                written += sending?;
            }
            while echoed < sent.len() {
                let compared = stream.poll_receive(cx, &mut |bytes: &[u8]| match bytes {
                    [] => Err(Failure::Closed),
                    bytes if sent[echoed..].starts_with(bytes) => Ok(bytes.len()),
                    _ => Err(Failure::Corrupt),
                });
                echoed += ready!(compared)??;
            }
            Poll::Ready(Result::<(), Failure>::Ok(()))
        })
        .await?;
        if !self.keepalive {
            self.close();
        }
        Ok(Answer {
            status: None,
            bytes: self.payload.bytes.len() as u64,
        })
    }

    /// Closes the connection.
    pub(crate) fn close(&mut self) {
        self.stream = None;
    }
}

thread_local! {
    /// A socket that waits holds no memory for what it waits for.
    static RECEIVED: RefCell<Box<[u8]>> = RefCell::new(vec![0; DATAGRAM].into());
}

/// A socket to a UDP echo server.
pub(crate) struct UdpEcho {
    payload: Payload,
    keepalive: bool,
    socket: Option<UdpSocket>,
}

impl UdpEcho {
    /// A socket with payloads of its own.
    pub(crate) fn new(lane: u32, size: usize, keepalive: bool) -> Self {
        Self {
            payload: Payload::new(lane, size),
            keepalive,
            socket: None,
        }
    }

    /// Opens the socket, unless it is open; tells whether it had to.
    ///
    /// # Errors
    /// The system's.
    pub(crate) async fn open(&mut self, address: SocketAddr) -> Result<bool, Failure> {
        if self.socket.is_some() {
            return Ok(false);
        }
        let any: SocketAddr = if address.is_ipv4() {
            ([0, 0, 0, 0], 0).into()
        } else {
            ([0_u16; 8], 0).into()
        };
        let opened = async {
            let socket = UdpSocket::bind(any).await?;
            socket.connect(address).await?;
            io::Result::Ok(socket)
        };
        self.socket = Some(opened.await?);
        Ok(true)
    }

    /// Sends a payload and waits for its echo. Late and repeated echoes of earlier payloads are passed over.
    ///
    /// # Errors
    /// When another one comes; the socket must be closed then.
    pub(crate) async fn exchange(&mut self) -> Result<Answer, Failure> {
        let socket = self.socket.as_mut().ok_or(Failure::Closed)?;
        self.payload.next();
        socket.send(&self.payload.bytes).await?;
        loop {
            socket.readable().await?;
            let received = RECEIVED.with_borrow_mut(|buffer| {
                let length = socket.try_recv(buffer)?;
                let echo = &buffer[..length];
                Ok(match echo == self.payload.bytes {
                    true => Some(Ok(())),
                    false if self.payload.is_earlier(echo) => None,
                    false => Some(Err(Failure::Corrupt)),
                })
            });
            match received {
                Ok(Some(result)) => {
                    result?;
                    break;
                }
                Ok(None) => {}
                Err(error) if io::Error::kind(&error) == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        if !self.keepalive {
            self.close();
        }
        Ok(Answer {
            status: None,
            bytes: self.payload.bytes.len() as u64,
        })
    }

    /// Closes the socket.
    pub(crate) fn close(&mut self) {
        self.socket = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_differ_by_connection_and_number() {
        let (mut one, mut other) = (Payload::new(1, 20), Payload::new(2, 20));
        one.next();
        other.next();
        let first = one.bytes.clone();
        assert_ne!(first, other.bytes);
        one.next();
        assert_ne!(first, one.bytes);
        assert!(one.is_earlier(&first));
        assert!(!one.is_earlier(&one.bytes));
        assert!(!one.is_earlier(&other.bytes));
        assert!(!one.is_earlier(&first[..19]));
    }
}

//! The loops that take what a guest sends: questions for names and connections.
//!
//! Must hold only so much for a guest at once, and end with everything that it carries when the
//! [`Service`] is dropped.

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Egress;

/// The sockets of one run of a sandbox, made inside of it.
#[derive(Debug)]
pub struct Sockets {
    /// For questions by UDP, bound to the [`NAME_SERVER`](crate::NAME_SERVER).
    pub names: UdpSocket,
    /// For questions by TCP, listening there.
    pub names_by_tcp: TcpListener,
    /// Sockets that listen at [`Plan::listeners`](crate::Plan::listeners).
    pub listeners: Vec<TcpListener>,
}

/// The service of one run. When it is dropped its sockets are closed and its connections cut.
#[derive(Debug)]
pub struct Service {
    _tasks: JoinSet<()>,
}

impl Egress {
    /// Serves these sockets, in tasks of this runtime.
    ///
    /// # Errors
    /// If the runtime can't have the sockets.
    pub fn serve(self: &Arc<Self>, sockets: Sockets) -> io::Result<Service> {
        let mut tasks = JoinSet::new();
        sockets.names.set_nonblocking(true)?;
        let names = tokio::net::UdpSocket::from_std(sockets.names)?;
        let by_tcp = listener(sockets.names_by_tcp)?;
        let mut listeners = Vec::new();
        for socket in sockets.listeners {
            listeners.push(listener(socket)?);
        }
        tasks.spawn(answer_by_udp(self.clone(), names));
        tasks.spawn(accept(by_tcp, MOST_QUESTIONERS, {
            let egress = self.clone();
            move |stream| Some(answer_by_tcp(egress.clone(), stream))
        }));
        for listener in listeners {
            let egress = self.clone();
            // Each connection has a slot of the sandbox's, so that no listener needs a limit.
            tasks.spawn(accept(listener, usize::MAX, move |stream| {
                let slot = egress.slots.clone().try_acquire_owned();
                let slot = slot.inspect_err(|_| egress.turned_away(&stream)).ok()?;
                let egress = egress.clone();
                Some(async move {
                    egress.connection(stream).await;
                    drop(slot);
                })
            }));
        }
        Ok(Service { _tasks: tasks })
    }
}

fn listener(socket: TcpListener) -> io::Result<tokio::net::TcpListener> {
    socket.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(socket)
}

/// After an error that will be there for a while: the host has no descriptor left.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts for ever; what `work` gives for a connection ends with this.
async fn accept<F: Future<Output = ()> + Send + 'static>(
    listener: tokio::net::TcpListener,
    most: usize,
    work: impl Fn(TcpStream) -> Option<F>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < most => match accepted {
                Ok((stream, _)) => {
                    if let Some(work) = work(stream) {
                        connections.spawn(work);
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "a sandbox's connection can't be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Questions in one window; more are dropped, so that a guest's flood costs the host little.
const MOST_QUESTIONS: u32 = 500;
const WINDOW: Duration = Duration::from_millis(100);
/// Longer ones are cut, and then can't be read.
const LONGEST_QUESTION: usize = 4096;

async fn answer_by_udp(egress: Arc<Egress>, socket: tokio::net::UdpSocket) {
    let mut query = [0; LONGEST_QUESTION];
    let mut window = Instant::now();
    let mut asked = 0;
    loop {
        if window.elapsed() > WINDOW {
            window = Instant::now();
            asked = 0;
        } else if asked >= MOST_QUESTIONS {
            // The socket's buffer fills meanwhile, and the kernel drops what is beyond it.
            tokio::time::sleep_until(window + WINDOW).await;
        }
        match socket.recv_from(&mut query).await {
            Ok((length, from)) => {
                asked += 1;
                if let Some(answer) = egress.answer(query.get(..length).unwrap_or_default()) {
                    // A guest that is gone hears nothing.
                    let _ = socket.try_send_to(&answer, from);
                }
            }
            // The last answer was refused, or memory is short.
            Err(error) => {
                tracing::debug!(%error, "a sandbox's question can't be received");
                asked += 1;
            }
        }
    }
}

const MOST_QUESTIONERS: usize = 8;
const MOST_PER_CONNECTION: usize = 64;
const QUESTION_TIME: Duration = Duration::from_secs(5);

async fn answer_by_tcp(egress: Arc<Egress>, mut stream: TcpStream) {
    for _ in 0..MOST_PER_CONNECTION {
        let one = tokio::time::timeout(QUESTION_TIME, answer_one(&egress, &mut stream)).await;
        if !matches!(one, Ok(Ok(true))) {
            return;
        }
    }
}

/// Whether another may follow.
async fn answer_one(egress: &Egress, stream: &mut TcpStream) -> io::Result<bool> {
    let length = usize::from(stream.read_u16().await?);
    if length > LONGEST_QUESTION {
        return Ok(false);
    }
    let mut query = vec![0; length];
    stream.read_exact(&mut query).await?;
    let Some(answer) = egress.answer(&query) else {
        return Ok(false);
    };
    let Ok(length) = u16::try_from(answer.len()) else {
        return Ok(false);
    };
    let mut message = length.to_be_bytes().to_vec();
    message.extend_from_slice(&answer);
    stream.write_all(&message).await?;
    Ok(true)
}

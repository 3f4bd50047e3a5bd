//! The host's end of the guest's agent (`qemu-scripts/guest/agent.py`, which describes the frames).
//!
//! One thread reads what the guest sends and sorts it by command, so commands can run side
//! by side and a long one does not hold up another.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long after a command's own timeout the agent may take to report it as ended.
const REPORT_GRACE: Duration = Duration::from_secs(20);
/// Longest frame taken from a guest; the agent sends 256 KiB at most.
const FRAME_BYTES_MAX: usize = 1 << 20;
const HEADER_BYTES: usize = 9;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the agent in the guest is gone; see the guest's kernel log")]
    Gone,
    #[error("cannot send to the agent in the guest; see the guest's kernel log")]
    Send(#[source] io::Error),
    #[error("`{command}` was killed in the guest after {timeout_ms} ms; so far:\n{output}")]
    Timeout {
        command: String,
        timeout_ms: u128,
        output: Output,
    },
    #[error("the guest hangs: no word on `{command}` after {timeout_ms} ms")]
    Hung { command: String, timeout_ms: u128 },
    #[error("`{command}` failed in the guest:\n{output}")]
    Failed { command: String, output: Output },
}

/// What a command in the guest left: bytes as they were written.
#[derive(Clone, Default)]
pub struct Output {
    /// Exit code, or minus the number of the signal that ended it.
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Output {
    /// Standard output as text, without the last newline.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "exit code {}", self.code)?;
        for (name, bytes) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !bytes.is_empty() {
                let text = String::from_utf8_lossy(bytes);
                writeln!(f, "--- {name}\n{}", text.trim_end())?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

enum Event {
    Hello,
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    Exit { code: i32, timed_out: bool },
}

/// Commands under way and where their events go. `None` when the guest is gone.
type Routes = Arc<Mutex<Option<HashMap<u32, Sender<Event>>>>>;

pub struct Agent {
    /// One writer at a time, so that frames stay whole.
    stream: Mutex<UnixStream>,
    routes: Routes,
    next_id: AtomicU32,
}

impl Agent {
    /// Takes a fresh connection and waits until the agent says hello.
    pub fn connect(stream: UnixStream, timeout: Duration) -> Result<Self, Error> {
        let (hello_to, hello) = mpsc::channel();
        let routes: Routes = Arc::new(Mutex::new(Some(HashMap::from([(0, hello_to)]))));
        let mut reader = stream.try_clone().map_err(Error::Send)?;
        let to_routes = Arc::clone(&routes);
        thread::spawn(move || {
            // Ends with the connection, that is, with QEMU.
            while let Ok((id, event)) = read_frame(&mut reader) {
                let mut routes = to_routes.lock().unwrap_or_else(PoisonError::into_inner);
                let map = routes.as_mut().expect("only this thread takes it");
                let over = matches!(event, Event::Exit { .. } | Event::Hello);
                if let Some(to) = map.get(&id) {
                    // A caller that gave up no longer listens; that is its right.
                    let _ = to.send(event);
                }
                if over {
                    map.remove(&id);
                }
            }
            *to_routes.lock().unwrap_or_else(PoisonError::into_inner) = None;
        });
        match hello.recv_timeout(timeout) {
            Ok(Event::Hello) => Ok(Self {
                stream: Mutex::new(stream),
                routes,
                next_id: AtomicU32::new(1),
            }),
            _ => Err(Error::Gone),
        }
    }

    /// Starts a command; `stdin` is all it will read.
    pub fn start(&self, command: &str, stdin: &[u8], timeout: Duration) -> Result<Running, Error> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (to, events) = mpsc::channel();
        self.routes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()
            .ok_or(Error::Gone)?
            .insert(id, to);
        let timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        let command_bytes = u32::try_from(command.len()).expect("a command under 4 GiB");
        let mut payload = Vec::with_capacity(8 + command.len() + stdin.len());
        payload.extend(timeout_ms.to_le_bytes());
        payload.extend(command_bytes.to_le_bytes());
        payload.extend(command.as_bytes());
        payload.extend(stdin);
        self.send(b'R', id, &payload)?;
        Ok(Running {
            command: command.to_owned(),
            timeout,
            deadline: Instant::now() + timeout + REPORT_GRACE,
            events,
            output: Output::default(),
        })
    }

    fn send(&self, kind: u8, id: u32, payload: &[u8]) -> Result<(), Error> {
        let length = u32::try_from(payload.len()).expect("a frame under 4 GiB");
        let mut frame = Vec::with_capacity(HEADER_BYTES + payload.len());
        frame.push(kind);
        frame.extend(id.to_le_bytes());
        frame.extend(length.to_le_bytes());
        frame.extend(payload);
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        stream.write_all(&frame).map_err(Error::Send)
    }
}

/// A command under way in the guest.
pub struct Running {
    command: String,
    timeout: Duration,
    deadline: Instant,
    events: Receiver<Event>,
    output: Output,
}

impl Running {
    /// Waits for its end; bounded by the timeout it was started with.
    pub fn wait(mut self) -> Result<Output, Error> {
        loop {
            match self.next_event() {
                Ok(Event::Exit { code, timed_out }) => {
                    self.output.code = code;
                    if !timed_out {
                        return Ok(self.output);
                    }
                    return Err(Error::Timeout {
                        command: self.command,
                        timeout_ms: self.timeout.as_millis(),
                        output: self.output,
                    });
                }
                Ok(event) => self.keep(event),
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until its standard output has `text`, for a command that goes on meanwhile.
    pub fn wait_for_output(&mut self, text: &str) -> Result<(), Error> {
        let has_it = |bytes: &[u8]| bytes.windows(text.len()).any(|w| w == text.as_bytes());
        while !has_it(&self.output.stdout) {
            match self.next_event()? {
                Event::Exit { code, .. } => {
                    self.output.code = code;
                    return Err(Error::Failed {
                        command: self.command.clone(),
                        output: self.output.clone(),
                    });
                }
                event => self.keep(event),
            }
        }
        Ok(())
    }

    fn next_event(&self) -> Result<Event, Error> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        self.events.recv_timeout(left).map_err(|error| match error {
            RecvTimeoutError::Timeout => Error::Hung {
                command: self.command.clone(),
                timeout_ms: (self.timeout + REPORT_GRACE).as_millis(),
            },
            RecvTimeoutError::Disconnected => Error::Gone,
        })
    }

    fn keep(&mut self, event: Event) {
        match event {
            Event::Stdout(bytes) => self.output.stdout.extend(bytes),
            Event::Stderr(bytes) => self.output.stderr.extend(bytes),
            Event::Hello | Event::Exit { .. } => {}
        }
    }
}

fn read_frame(stream: &mut impl Read) -> io::Result<(u32, Event)> {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header)?;
    let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("4 bytes"));
    let (id, length) = (word(1), word(5) as usize);
    if length > FRAME_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload)?;
    let event = match (header[0], payload.as_slice()) {
        (b'H', _) => Event::Hello,
        (b'O', _) => Event::Stdout(payload),
        (b'E', _) => Event::Stderr(payload),
        (b'X', &[a, b, c, d, timed_out]) => Event::Exit {
            code: i32::from_le_bytes([a, b, c, d]),
            timed_out: timed_out != 0,
        },
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    Ok((id, event))
}

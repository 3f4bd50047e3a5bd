//! Daemons die at any moment, with requests of all kinds in flight; the guest sees a pause.

use std::collections::BTreeMap;

use guest_tests::fixture::{Heritage, Mount, Noise, Volume};
use guest_tests::ring::fuse::abi::ROOT_ID;
use guest_tests::ring::fuse::{ops, Errno, Handle, SessionConfig, Ticket};
use guest_tests::ring::memory::Buffer;

const RDWR: i32 = libc::O_RDWR;
const QUEUES: usize = 2;
/// Requests in flight on each queue when the daemon dies.
const BATCH: u64 = 24;
/// Bytes of one write, and of the file's part that it goes to.
const PART: usize = 50_000;
const PARTS: usize = 60;

/// A request in flight, and what its success makes of the model.
enum Change {
    Make(String),
    Remove(String),
    Move(String, String),
    Write(usize, u64),
    Read(usize, Buffer),
}

/// The guest: what it has done, and what must come of it.
struct Guest {
    file: Handle,
    /// Directory entries, with their kind.
    names: BTreeMap<String, bool>,
    /// The seed of what was last written to each part.
    parts: Vec<Option<u64>>,
    noise: Noise,
    made: u64,
}

impl Guest {
    fn content(seed: u64) -> Vec<u8> {
        Noise::new(seed).bytes(PART)
    }

    /// Sends a batch to each queue: no request depends on another in flight.
    fn send(&mut self, mount: &mut Mount) -> Vec<(usize, Ticket<usize>, Change)> {
        let mut sent = Vec::new();
        let mut idle: Vec<String> = self.names.keys().cloned().collect();
        let mut parts: Vec<usize> = (0..PARTS).collect();
        for queue in 0..QUEUES {
            let fs = &mut mount.session.clients[queue];
            for _ in 0..BATCH {
                let part = parts.swap_remove(self.noise.below(parts.len() as u64) as usize);
                let kind = self.noise.below(6);
                let taken = match idle.len() as u64 {
                    0 => None,
                    len => Some(idle.swap_remove(self.noise.below(len) as usize)),
                };
                self.made += 1;
                let new = format!("{}", self.made);
                let (request, change) = match (kind, taken) {
                    (0, Some(name)) if self.names[&name] => {
                        let request = ops::rmdir(ROOT_ID, name.as_bytes()).length_only();
                        (fs.enqueue(&request, 0), Change::Remove(name))
                    }
                    (0, Some(name)) => {
                        let request = ops::unlink(ROOT_ID, name.as_bytes()).length_only();
                        (fs.enqueue(&request, 0), Change::Remove(name))
                    }
                    (1, Some(name)) => {
                        let (old, to) = (name.as_bytes(), new.as_bytes());
                        let request = ops::rename(ROOT_ID, old, ROOT_ID, to).length_only();
                        (fs.enqueue(&request, 0), Change::Move(name, new))
                    }
                    (0..=2, _) => {
                        let request = ops::mkdir(ROOT_ID, new.as_bytes(), 0o755, 0);
                        let request = request.length_only();
                        (fs.enqueue(&request, 0), Change::Make(new + "/"))
                    }
                    (3, _) => {
                        let flags = RDWR | libc::O_EXCL;
                        let request = ops::create(ROOT_ID, new.as_bytes(), 0o600, flags, 0);
                        let request = request.length_only();
                        (fs.enqueue(&request, 0), Change::Make(new))
                    }
                    (4, _) => {
                        let seed = self.made;
                        let data = fs.memory().alloc_pages(PART).unwrap();
                        data.write(0, &Guest::content(seed));
                        let request = ops::write(self.file, (part * PART) as u64, &data);
                        let request = request.length_only();
                        (fs.enqueue(&request, 0), Change::Write(part, seed))
                    }
                    _ => {
                        let data = fs.memory().alloc_pages(PART).unwrap();
                        let request = ops::read(self.file, (part * PART) as u64, &data);
                        (fs.enqueue(&request, 0), Change::Read(part, data))
                    }
                };
                sent.push((queue, request.unwrap(), change));
            }
            fs.kick().unwrap();
        }
        sent
    }

    /// Takes the answers: each is the success that it would be without a death.
    fn take(&mut self, mount: &mut Mount, sent: Vec<(usize, Ticket<usize>, Change)>) {
        for (queue, ticket, change) in sent {
            let fs = &mut mount.session.clients[queue];
            let answer = fs.wait(ticket).unwrap_or_else(|e| panic!("{e}"));
            match change {
                Change::Make(name) => {
                    let is_dir = name.ends_with('/');
                    self.names
                        .insert(name.trim_end_matches('/').to_owned(), is_dir);
                }
                Change::Remove(name) => drop(self.names.remove(&name)),
                Change::Move(name, new) => {
                    let is_dir = self.names.remove(&name).unwrap();
                    self.names.insert(new, is_dir);
                }
                Change::Write(part, seed) => self.parts[part] = Some(seed),
                Change::Read(part, data) => {
                    assert!(data.to_vec(0, answer) == self.expected(part)[..answer]);
                }
            }
        }
    }

    fn expected(&self, part: usize) -> Vec<u8> {
        self.parts[part].map_or(vec![0; PART], Guest::content)
    }

    fn check(&self, mount: &mut Mount) {
        let fs = mount.fs();
        let mut listed = BTreeMap::new();
        for entry in fs.list("/").unwrap() {
            let name = String::from_utf8(entry.name).unwrap();
            listed.insert(name, entry.kind == u32::from(libc::DT_DIR));
        }
        assert_eq!(listed.remove("file"), Some(false));
        assert_eq!(listed, self.names);
        let bytes = fs.read_to_end(self.file).unwrap();
        for part in 0..PARTS {
            let read = bytes.get(part * PART..).unwrap_or_default();
            let read = &read[..read.len().min(PART)];
            assert!(read == &self.expected(part)[..read.len()], "part {part}");
        }
    }
}

/// Brings the rings' 16-bit indices to where they are about to go round.
fn go_round(mount: &mut Mount) {
    for fs in &mut mount.session.clients {
        while fs.queue().ring().used_index() < u16::MAX - 100 {
            let tickets: Vec<Ticket<()>> = (0..50)
                .map(|_| fs.enqueue(&ops::access(ROOT_ID, 0), 0).unwrap())
                .collect();
            fs.kick().unwrap();
            for ticket in tickets {
                fs.wait(ticket).unwrap();
            }
        }
    }
}

fn live_through_deaths(volume: &Volume, deaths: u32, orderly: bool) {
    let heritage = Heritage::new();
    let config = SessionConfig::with_queues(QUEUES);
    let mut mount = Mount::start(heritage.pass_to(volume.daemon()), &config);
    let (_, file) = mount.fs().create(ROOT_ID, "file", 0o600, RDWR).unwrap();
    go_round(&mut mount);
    let mut guest = Guest {
        file,
        names: BTreeMap::new(),
        parts: vec![None; PARTS],
        noise: Noise::new(deaths.into()),
        made: 0,
    };
    for _ in 0..deaths {
        // Any moment: after so many answers on a queue.
        let before = guest.noise.below(BATCH) as u16;
        let queue = guest.noise.below(QUEUES as u64) as usize;
        let ring = mount.session.device.rings()[1 + queue].clone();
        let start = ring.used_index();
        let sent = guest.send(&mut mount);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while ring.used_index().wrapping_sub(start) < before {
            assert!(std::time::Instant::now() < deadline, "no answers");
            std::thread::yield_now();
        }
        if orderly {
            let status = mount.daemon.terminate().unwrap();
            assert_eq!(status.code(), Some(0), "{}", mount.daemon.log());
        } else {
            mount.daemon.kill().unwrap();
        }
        mount.resume_with(heritage.pass_to(volume.daemon()));
        guest.take(&mut mount, sent);
    }
    guest.check(&mut mount);
    // Forgotten lookups and all: the daemon has what it should of its session.
    assert_eq!(
        mount.fs().lookup(ROOT_ID, "none").unwrap_err(),
        Errno::NOENT
    );
}

#[test]
fn a_guest_lives_through_forty_kills() {
    live_through_deaths(&Volume::striped(), 40, false);
}

#[test]
fn a_guest_lives_through_twenty_kills_on_a_plain_directory() {
    live_through_deaths(&Volume::posix(), 20, false);
}

#[test]
fn a_guest_lives_through_twenty_kills_in_mapped_ownership() {
    live_through_deaths(&Volume::mapped(), 20, false);
}

#[test]
fn a_guest_lives_through_ten_orderly_ends() {
    live_through_deaths(&Volume::striped(), 10, true);
}

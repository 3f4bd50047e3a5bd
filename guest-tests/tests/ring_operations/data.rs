//! Reading and writing.

use guest_tests::fixture::{Mount, Noise, Volume, MDT_SIZE, STRIPE_UNIT, TARGETS};
use guest_tests::ring::fuse::abi::{InHeader, Opcode, OutHeader, ReadIn, WriteIn, ROOT_ID};
use guest_tests::ring::fuse::{Client, DataShape, Errno, Handle};
use guest_tests::ring::memory::{Buffer, PAGE_SIZE};
use guest_tests::ring::queue::Segment;
use vm_memory::ByteValued;

on_every_kind_of_volume! {
    odd_offsets_and_sizes,
    random_writes_and_reads,
    a_mebibyte_in_one_descriptor_and_in_256,
    pages_scattered_in_guest_memory,
    reads_at_and_beyond_the_end,
    an_append_goes_where_the_guest_says,
    a_handle_does_what_it_was_opened_for,
    access_mode_3_opens_and_truncates,
    syncs,
}

const RDWR: i32 = libc::O_RDWR;
/// All stripes of a file's first row.
const ROW: usize = STRIPE_UNIT * TARGETS;

/// A file, and what must be in it.
pub(super) struct Modelled {
    pub handle: Handle,
    pub bytes: Vec<u8>,
}

impl Modelled {
    pub fn new(fs: &mut Client, name: &str) -> Modelled {
        let (_, handle) = fs.create(ROOT_ID, name, 0o600, RDWR).unwrap();
        let bytes = Vec::new();
        Modelled { handle, bytes }
    }

    /// Writes to both.
    pub fn write(&mut self, fs: &mut Client, offset: usize, bytes: &[u8]) {
        let written = fs.write(self.handle, offset as u64, bytes).unwrap();
        assert_eq!(written, bytes.len());
        let end = offset + bytes.len();
        if end > self.bytes.len() {
            self.bytes.resize(end, 0);
        }
        self.bytes[offset..end].copy_from_slice(bytes);
    }

    /// Compares a range, which may go beyond the end.
    pub fn check_range(&self, fs: &mut Client, offset: usize, len: usize) {
        let read = fs.read(self.handle, offset as u64, len).unwrap();
        let end = (offset + len).min(self.bytes.len());
        let expected = self.bytes.get(offset..end).unwrap_or_default();
        assert_same(&read, expected, offset);
    }

    /// Compares size and content.
    pub fn check(&self, fs: &mut Client) {
        let size = fs.fgetattr(self.handle).unwrap().attr.size;
        assert_eq!(size, self.bytes.len() as u64);
        assert_same(&fs.read_to_end(self.handle).unwrap(), &self.bytes, 0);
    }
}

/// Says where bytes differ, not what they are.
fn assert_same(read: &[u8], expected: &[u8], offset: usize) {
    let differs = read.iter().zip(expected).position(|(a, b)| a != b);
    if let Some(at) = differs {
        panic!("byte {} is {}, not {}", offset + at, read[at], expected[at]);
    }
    assert_eq!(read.len(), expected.len(), "bytes from {offset}");
}

fn odd_offsets_and_sizes(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    let mut noise = Noise::new(1);
    for (index, shape) in [DataShape::Single, DataShape::Pages]
        .into_iter()
        .enumerate()
    {
        fs.shape = shape;
        let mut file = Modelled::new(fs, &format!("f{index}"));
        let offsets = [
            0,
            1,
            MDT_SIZE - 1,
            MDT_SIZE,
            MDT_SIZE + STRIPE_UNIT - 1,
            ROW + 7,
        ];
        for len in [
            1,
            511,
            4097,
            STRIPE_UNIT - 1,
            STRIPE_UNIT + 1,
            ROW + 4097,
            1 << 20,
        ] {
            for offset in offsets {
                let len = len.min(fs.limits.io_len);
                file.write(fs, offset, &noise.bytes(len));
                file.check_range(fs, offset.saturating_sub(3), len);
            }
        }
        file.check(fs);
    }
}

fn random_writes_and_reads(mount: &mut Mount, volume: &Volume) {
    let fs = mount.fs();
    fs.shape = DataShape::Pages;
    let mut noise = Noise::new(2);
    let mut file = Modelled::new(fs, "f");
    for _ in 0..150 {
        let offset = noise.below(3 << 20) as usize;
        let len = 1 + noise.below(300_000) as usize;
        file.write(fs, offset, &noise.bytes(len));
        let (offset, len) = (noise.below(4 << 20), noise.below(1 << 20));
        file.check_range(fs, offset as usize, len as usize);
    }
    file.check(fs);
    fs.release(file.handle).unwrap();
    let host = match volume.is_striped() {
        true => volume.get("/f"),
        false => std::fs::read(volume.host_path("f")).unwrap(),
    };
    assert_same(&host, &file.bytes, 0);
}

fn a_mebibyte_in_one_descriptor_and_in_256(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    assert_eq!(fs.limits.io_len, 1 << 20);
    let mut noise = Noise::new(3);
    let mut file = Modelled::new(fs, "f");
    for shape in [DataShape::Single, DataShape::Pages] {
        for offset in [0, 4096, 12_345] {
            fs.shape = shape;
            file.write(fs, offset, &noise.bytes(1 << 20));
            for read in [DataShape::Single, DataShape::Pages] {
                fs.shape = read;
                file.check_range(fs, offset, 1 << 20);
            }
        }
    }
    file.check(fs);
}

/// No two pages of the request are neighbours: neither side can join them.
fn pages_scattered_in_guest_memory(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    let mut noise = Noise::new(4);
    let mut file = Modelled::new(fs, "f");
    file.write(fs, 0, &[1]);
    let len = 256 * PAGE_SIZE;
    let memory = fs.memory().alloc_pages(2 * len).unwrap();
    // Backwards, every other page.
    let place = |page: usize| (2 * (255 - page) + 1) * PAGE_SIZE;
    let pages: Vec<Segment> = (0..256)
        .map(|page| Segment::from(&memory.slice(place(page), PAGE_SIZE)))
        .collect();
    for offset in [0, 1000, MDT_SIZE + 17] {
        let bytes = noise.bytes(len);
        for (page, bytes) in bytes.chunks(PAGE_SIZE).enumerate() {
            memory.write(place(page), bytes);
        }
        let body = WriteIn {
            fh: file.handle.fh,
            offset: offset as u64,
            size: len as u32,
            ..WriteIn::default()
        };
        let sent = head(fs, Opcode::Write, file.handle, body.as_slice(), len);
        let reply = fs.memory().alloc_pages(PAGE_SIZE).unwrap();
        let readable = [&[Segment::from(&sent)], &pages[..]].concat();
        let writable = [Segment::from(&reply.slice(0, 24))];
        let hold = [memory.clone(), reply.clone()];
        assert_eq!(fs.call_segments(&readable, &writable, &hold).unwrap(), 24);
        assert_eq!(error_of(&reply), 0);
        file.bytes.resize(file.bytes.len().max(offset + len), 0);
        file.bytes[offset..offset + len].copy_from_slice(&bytes);
        file.check(fs);

        memory.fill(0xee);
        let body = ReadIn {
            fh: file.handle.fh,
            offset: offset as u64,
            size: len as u32,
            ..ReadIn::default()
        };
        let sent = head(fs, Opcode::Read, file.handle, body.as_slice(), 0);
        let writable = [&[Segment::from(&reply.slice(0, 16))], &pages[..]].concat();
        let used = fs.call_segments(&[Segment::from(&sent)], &writable, &hold);
        assert_eq!((used.unwrap() as usize, error_of(&reply)), (16 + len, 0));
        for (page, bytes) in bytes.chunks(PAGE_SIZE).enumerate() {
            assert_same(
                &memory.to_vec(place(page), PAGE_SIZE),
                bytes,
                page * PAGE_SIZE,
            );
            let between = memory.to_vec(place(page) - PAGE_SIZE, PAGE_SIZE);
            assert_same(&between, &[0xee; PAGE_SIZE], 0);
        }
    }
}

fn head(fs: &Client, opcode: Opcode, handle: Handle, body: &[u8], payload_len: usize) -> Buffer {
    let len = size_of::<InHeader>() + body.len();
    let header = InHeader {
        len: (len + payload_len) as u32,
        opcode: opcode as u32,
        unique: 77,
        nodeid: handle.nodeid,
        ..InHeader::default()
    };
    let buffer = fs.memory().alloc_pages(len).unwrap();
    buffer.write(0, header.as_slice());
    buffer.write(size_of::<InHeader>(), body);
    buffer
}

fn error_of(reply: &Buffer) -> i32 {
    reply.read_obj::<OutHeader>(0).error
}

fn reads_at_and_beyond_the_end(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    for len in [0, 1, MDT_SIZE - 1, MDT_SIZE, MDT_SIZE + 1, ROW + 3] {
        let mut file = Modelled::new(fs, &format!("{len}"));
        if len > 0 {
            file.write(fs, 0, &Noise::new(5).bytes(len));
        }
        for at in [len.saturating_sub(1), len, len + 1, len + ROW, 1 << 30] {
            for wanted in [0, 1, 4096, ROW] {
                file.check_range(fs, at, wanted);
            }
        }
    }
}

fn an_append_goes_where_the_guest_says(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    let mut file = Modelled::new(fs, "f");
    file.write(fs, 0, &Noise::new(6).bytes(MDT_SIZE + 100));
    let append = fs.open(file.handle.nodeid, RDWR | libc::O_APPEND).unwrap();
    // A guest sends the offset that it takes for the end, also where others know better.
    for (at, text) in [
        (MDT_SIZE + 100, &b"end"[..]),
        (MDT_SIZE - 2, b"over"),
        (5, b"five"),
    ] {
        assert_eq!(fs.write(append, at as u64, text).unwrap(), text.len());
        let end = at + text.len();
        file.bytes.resize(file.bytes.len().max(end), 0);
        file.bytes[at..end].copy_from_slice(text);
        file.check(fs);
    }
}

fn a_handle_does_what_it_was_opened_for(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    let mut file = Modelled::new(fs, "f");
    file.write(fs, 0, &Noise::new(7).bytes(MDT_SIZE + 10));
    let node = file.handle.nodeid;
    let read = fs.open(node, libc::O_RDONLY).unwrap();
    let write = fs.open(node, libc::O_WRONLY).unwrap();
    assert_eq!(fs.write(read, 0, b"x").unwrap_err(), Errno::BADF);
    assert_eq!(fs.read(write, 0, 1).unwrap_err(), Errno::BADF);
    assert_eq!(fs.fallocate(read, 0, 0, 1).unwrap_err(), Errno::BADF);
    assert_eq!(fs.write(write, MDT_SIZE as u64, b"y").unwrap(), 1);
    file.bytes[MDT_SIZE] = b'y';
    assert_eq!(fs.read(read, MDT_SIZE as u64, 1).unwrap(), b"y");
    fs.release(read).unwrap();
    assert_eq!(fs.read(read, 0, 1).unwrap_err(), Errno::BADF);
    assert_eq!(fs.release(read).unwrap_err(), Errno::BADF);
    // A handle of another node, and one of a directory.
    let dir = fs.opendir(ROOT_ID).unwrap();
    let foreign = Handle {
        nodeid: ROOT_ID,
        ..write
    };
    assert_eq!(fs.write(foreign, 0, b"x").unwrap_err(), Errno::BADF);
    let mixed = Handle {
        nodeid: node,
        ..dir
    };
    assert_eq!(fs.read(mixed, 0, 1).unwrap_err(), Errno::BADF);
    assert_eq!(fs.readdir(file.handle, 0, 4096).unwrap_err(), Errno::BADF);
    file.check(fs);
}

/// `open(2)`: access mode 3 checks for both permissions; the guest's kernel then reads and writes
/// nothing.
fn access_mode_3_opens_and_truncates(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    let mut file = Modelled::new(fs, "f");
    file.write(fs, 0, &Noise::new(8).bytes(MDT_SIZE + 10));
    let node = file.handle.nodeid;
    let handle = fs.open(node, libc::O_ACCMODE).unwrap();
    assert_eq!(
        fs.fgetattr(handle).unwrap().attr.size,
        file.bytes.len() as u64
    );
    fs.release(handle).unwrap();
    let handle = fs.open(node, libc::O_ACCMODE | libc::O_TRUNC).unwrap();
    assert_eq!(fs.fgetattr(handle).unwrap().attr.size, 0);
    fs.release(handle).unwrap();
}

fn syncs(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    let mut file = Modelled::new(fs, "f");
    for len in [10, MDT_SIZE, ROW + MDT_SIZE + 5] {
        file.write(fs, 0, &Noise::new(8).bytes(len));
        fs.fsync(file.handle, true).unwrap();
        fs.fsync(file.handle, false).unwrap();
        fs.flush(file.handle, 1).unwrap();
    }
    fs.syncfs(ROOT_ID).unwrap();
    file.check(fs);
    let unknown = Handle {
        fh: 1 << 40,
        ..file.handle
    };
    assert_eq!(fs.fsync(unknown, false).unwrap_err(), Errno::BADF);
    assert_eq!(fs.flush(unknown, 1).unwrap_err(), Errno::BADF);
}

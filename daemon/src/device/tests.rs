use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pfs_core::fs::{Answer, IntentLog, Reply, Ticket};
use pfs_core::io::Io;
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserHeaderFlag};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::GuestMemory;
use vmm_sys_util::eventfd::EventFd;

use super::*;
use crate::chain::Chain;
use crate::fuse::Submitted;
use crate::queue::testing::Driver;

/// Answers every request with its length.
struct Echo;

impl Serve for Echo {
    type Pending = ();
    type Source = ();

    fn source(&self, _: u16, _: u16, _: bool) {}

    fn stop_waits(&self, _: &()) {}

    fn submit(
        &self,
        io: &mut Io,
        ticket: Ticket,
        chain: &Chain,
        _pending: &mut (),
        _intent: Option<&dyn IntentLog>,
        _: &(),
    ) -> Submitted {
        let len = chain.readable_len() as u32;
        let reply = Reply::<u32>::new(io.mailbox(), ticket);
        io.blocking(move || {
            std::thread::sleep(Duration::from_millis(20));
            reply.ok(len);
        });
        Submitted::Later
    }

    fn answer(
        &self,
        _pending: &mut (),
        chain: &Chain,
        result: &mut pfs_core::fs::Result<Answer>,
    ) -> u32 {
        match result {
            Ok(Answer::Count(count)) => chain.writer().write(&count.to_le_bytes()) as u32,
            _ => 0,
        }
    }
}

struct Setup {
    device: Device,
    serving: JoinHandle<Result<Served, Error>>,
    frontend: Frontend,
}

fn serve(device: &Device) -> (JoinHandle<Result<Served, Error>>, Frontend) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let of_thread = device.clone();
    let serving = std::thread::spawn(move || of_thread.serve(listener));
    let stream = UnixStream::connect(&path).unwrap();
    let mut frontend = Frontend::from_stream(stream, QUEUES_MAX as u64);
    frontend.set_owner().unwrap();
    let features = frontend.get_features().unwrap();
    assert_eq!(features, device.features());
    let protocol = frontend.get_protocol_features().unwrap();
    frontend.set_protocol_features(protocol).unwrap();
    frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    assert_eq!(frontend.get_queue_num().unwrap(), QUEUES_MAX as u64);
    frontend.set_features(features).unwrap();
    (serving, frontend)
}

fn setup() -> Setup {
    let config = DeviceConfig {
        tag: Some("my tag".to_owned()),
        request_queues: 3,
        pool: Pool::new(4).unwrap(),
        poll_limit: Duration::ZERO,
        inflight: None,
    };
    let device = Device::new(Arc::new(Echo), config).unwrap();
    let (serving, frontend) = serve(&device);
    Setup {
        device,
        serving,
        frontend,
    }
}

/// Addresses in the VMM are those of the guest, and this.
const VMM: u64 = 0x7000_0000_0000;

fn share_memory(frontend: &Frontend, driver: &Driver) {
    let regions: Vec<_> = driver
        .memory
        .iter()
        .map(|region| {
            let mut info = VhostUserMemoryRegionInfo::from_guest_region(region).unwrap();
            info.userspace_addr = VMM + info.guest_phys_addr;
            info
        })
        .collect();
    frontend.set_mem_table(&regions).unwrap();
}

struct Events {
    kick: EventFd,
    call: EventFd,
}

/// Starts a ring as QEMU does.
fn start(frontend: &mut Frontend, index: usize, driver: &Driver, base: u16) -> Events {
    let state = driver.state(true);
    let events = Events {
        kick: EventFd::new(0).unwrap(),
        call: EventFd::new(libc::EFD_NONBLOCK).unwrap(),
    };
    frontend.set_vring_num(index, driver.size).unwrap();
    frontend.set_vring_base(index, base).unwrap();
    let config = VringConfigData {
        queue_max_size: driver.size,
        queue_size: driver.size,
        flags: 0,
        desc_table_addr: VMM + state.desc_table,
        used_ring_addr: VMM + state.used_ring,
        avail_ring_addr: VMM + state.avail_ring,
        log_addr: None,
    };
    frontend.set_vring_addr(index, &config).unwrap();
    frontend.set_vring_kick(index, &events.kick).unwrap();
    frontend.set_vring_call(index, &events.call).unwrap();
    frontend.set_vring_enable(index, true).unwrap();
    events
}

fn wait_used(driver: &mut Driver, count: usize) -> Vec<(u32, u32)> {
    let end = Instant::now() + Duration::from_secs(10);
    let mut used = Vec::new();
    while used.len() < count {
        used.extend(driver.used());
        assert!(Instant::now() < end, "only {used:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
    used
}

#[test]
fn a_guest_boots_works_and_reboots() {
    let mut setup = setup();
    let flags = VhostUserConfigFlags::WRITABLE;
    let (_, space) = setup.frontend.get_config(0, 40, flags, &[0; 40]).unwrap();
    assert_eq!(space[..7], *b"my tag\0");
    assert_eq!(space[36..], 3u32.to_le_bytes());

    for _boot in 0..3 {
        let mut drivers = [Driver::new(16), Driver::new(16)];
        // All in one memory: the second ring has its own, which is shared last.
        for (index, driver) in drivers.iter_mut().enumerate() {
            let index = index * 254 + 1;
            share_memory(&setup.frontend, driver);
            let events = start(&mut setup.frontend, index, driver, 0);
            driver.request(0, b"12345");
            driver.offer(0);
            events.kick.write(1).unwrap();
            assert_eq!(wait_used(driver, 1), [(0, 4)]);
            assert_eq!(driver.reply(0)[0], 5);
            std::thread::sleep(Duration::from_millis(20));
            assert!(events.call.read().is_ok());

            // Stopped with a request in flight: it is answered before the base is.
            driver.request(2, b"123");
            driver.offer(2);
            events.kick.write(1).unwrap();
            std::thread::sleep(Duration::from_millis(5));
            let base = setup.frontend.get_vring_base(index).unwrap();
            let used = driver.used();
            assert_eq!((base as usize, used.len()), (1 + used.len(), used.len()));

            // And goes on there, at once.
            let _events = start(&mut setup.frontend, index, driver, base as u16);
            wait_used(driver, 1 - used.len());
            assert_eq!(setup.frontend.get_vring_base(index).unwrap(), 2);
        }
    }
    drop(setup.frontend);
    assert_eq!(setup.serving.join().unwrap().unwrap(), Served::Disconnected);

    // Another VMM may come after it.
    let (serving, frontend) = serve(&setup.device);
    drop(frontend);
    assert_eq!(serving.join().unwrap().unwrap(), Served::Disconnected);
}

#[test]
fn a_shutdown_drains() {
    let mut setup = setup();
    let mut driver = Driver::new(16);
    share_memory(&setup.frontend, &driver);
    let events = start(&mut setup.frontend, 0, &driver, 0);
    driver.request(0, b"1");
    driver.offer(0);
    events.kick.write(1).unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while setup.device.in_flight().is_empty() && driver.used_idx() == 0 {
        assert!(Instant::now() < end);
    }
    setup.device.shutdown();
    assert_eq!(setup.serving.join().unwrap().unwrap(), Served::ShutDown);
    assert_eq!(driver.used(), [(0, 4)]);
}

#[test]
fn a_ring_that_makes_no_sense_is_not_served() {
    let mut setup = setup();
    let driver = Driver::new(16);
    share_memory(&setup.frontend, &driver);
    let odd = Driver::new(12);
    let _events = start(&mut setup.frontend, 1, &odd, 0);
    setup.frontend.get_vring_base(1).unwrap();
    let _events = start(&mut setup.frontend, 1, &driver, 0);
    assert_eq!(setup.frontend.get_vring_base(1).unwrap(), 0);
}

#[test]
fn a_tag_has_its_limits() {
    for tag in ["", "0123456789012345678901234567890123456"] {
        assert!(matches!(
            config_space(tag.to_owned(), 1),
            Err(Error::Tag(_))
        ));
    }
    let space = config_space("t".repeat(36), 1000).unwrap();
    assert_eq!((space.len(), space[36]), (40, 255));
}

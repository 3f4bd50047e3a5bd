//! QEMU's command line for a guest of the tests. `qemu-scripts/run-vm.sh` is its twin for people.

use super::image::Image;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A virtiofs device of the guest: where its daemon listens, and what the guest calls it.
#[derive(Clone, Debug)]
pub struct Share {
    socket: PathBuf,
    tag: String,
    request_queues: u32,
    queue_size: u32,
}

impl Share {
    /// One request queue of 1024 descriptors: with QEMU's default of 128, requests end at 496 KiB.
    pub fn new(socket: impl Into<PathBuf>, tag: impl Into<String>) -> Self {
        Self {
            socket: socket.into(),
            tag: tag.into(),
            request_queues: 1,
            queue_size: 1024,
        }
    }

    pub fn request_queues(mut self, count: u32) -> Self {
        self.request_queues = count;
        self
    }

    pub fn queue_size(mut self, descriptors: u32) -> Self {
        self.queue_size = descriptors;
        self
    }
}

/// What the guest's machine looks like.
#[derive(Clone, Debug)]
pub struct Machine {
    pub vcpus: u32,
    pub memory_mib: u32,
    pub shares: Vec<Share>,
}

/// Files of one running guest, all in its own folder.
#[derive(Debug)]
pub struct Files {
    pub console_log: PathBuf,
    pub agent_socket: PathBuf,
    pub qmp_socket: PathBuf,
    pub qemu_log: PathBuf,
}

impl Files {
    pub fn in_dir(dir: &Path) -> Self {
        Self {
            console_log: dir.join("console.log"),
            agent_socket: dir.join("agent.sock"),
            qmp_socket: dir.join("qmp.sock"),
            qemu_log: dir.join("qemu.log"),
        }
    }
}

/// `/dev/kvm` alone proves nothing: inside some VMs it opens and a guest then hangs in it,
/// so the CPU must offer virtualization too.
fn kvm_is_usable() -> bool {
    let cpu_offers_it = fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| {
        text.split_ascii_whitespace()
            .any(|word| word == "vmx" || word == "svm")
    });
    let mut device = fs::OpenOptions::new();
    cpu_offers_it && device.read(true).write(true).open("/dev/kvm").is_ok()
}

/// The whole command; the caller adds what concerns processes.
pub fn command(image: &Image, machine: &Machine, files: &Files) -> Command {
    let mut qemu = Command::new(&image.qemu);
    for dir in &image.qemu_data {
        qemu.arg("-L").arg(dir);
    }
    let mut args: Vec<String> = Vec::new();
    let mut option = |name: &str, value: String| args.extend([name.to_owned(), value]);

    option("-name", "guest,debug-threads=on".into());
    option("-machine", "q35,memory-backend=ram".into());
    if kvm_is_usable() {
        option("-accel", "kvm".into());
        option("-cpu", "host".into());
    } else {
        option("-accel", "tcg,thread=multi".into());
        option("-cpu", "max".into());
    }
    option("-smp", machine.vcpus.to_string());
    let memory_mib = machine.memory_mib;
    option("-m", format!("{memory_mib}M"));
    // Shared, because the daemon reads and writes the guest's memory directly.
    option(
        "-object",
        format!("memory-backend-memfd,id=ram,size={memory_mib}M,share=on"),
    );

    option("-kernel", image.kernel.display().to_string());
    option("-initrd", image.initrd.display().to_string());
    option(
        "-append",
        "console=ttyS0 panic=-1 pfs.mode=agent".to_owned(),
    );
    for disk in [&image.root, &image.modules] {
        // Without locks: all guests share these read-only images.
        option(
            "-drive",
            format!(
                "file={},if=virtio,format=raw,readonly=on,file.locking=off",
                disk.display()
            ),
        );
    }
    option("-serial", format!("file:{}", files.console_log.display()));

    option(
        "-qmp",
        format!("unix:{},server=on,wait=off", files.qmp_socket.display()),
    );
    option("-device", "virtio-serial-pci".into());
    option(
        "-chardev",
        format!("socket,id=agent,path={}", files.agent_socket.display()),
    );
    option(
        "-device",
        "virtserialport,chardev=agent,name=agent".to_owned(),
    );
    for (number, share) in machine.shares.iter().enumerate() {
        option(
            "-chardev",
            format!("socket,id=fs{number},path={}", share.socket.display()),
        );
        option(
            "-device",
            format!(
                "vhost-user-fs-pci,chardev=fs{number},tag={},num-request-queues={},queue-size={}",
                share.tag, share.request_queues, share.queue_size
            ),
        );
    }
    qemu.args(["-nodefaults", "-no-user-config", "-no-reboot"]);
    qemu.args(["-display", "none"]);
    qemu.args(args);
    qemu
}

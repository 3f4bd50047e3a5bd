//! What guests boot from, made and cached by `qemu-scripts/guest-image.sh`.

use super::script::{Error, Values};
use std::path::PathBuf;

/// The guest's kernel, and with it the QEMU that runs it well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kernel {
    /// Debian 12's own kernel under the installed QEMU. Uses the first request queue only.
    #[default]
    V6_1,
    /// Kernel 6.12 under QEMU 10, both of Debian backports: uses all request queues.
    V6_12,
}

impl Kernel {
    fn script_args(self) -> &'static [&'static str] {
        match self {
            Kernel::V6_1 => &[],
            Kernel::V6_12 => &["--kernel-6.12", "--qemu-10"],
        }
    }
}

/// What is installed in the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Root {
    /// A shell, python and fio.
    #[default]
    Basic,
    /// Also what the test suites run: git, databases, a compiler.
    Suites,
}

impl Root {
    fn script_args(self) -> &'static [&'static str] {
        match self {
            Root::Basic => &[],
            Root::Suites => &["--suites"],
        }
    }
}

/// Paths of all parts, ready to boot.
#[derive(Debug)]
pub struct Image {
    pub root: PathBuf,
    pub modules: PathBuf,
    pub kernel: PathBuf,
    pub initrd: PathBuf,
    pub qemu: PathBuf,
    /// Firmware folders for `-L`; empty for QEMU's own defaults.
    pub qemu_data: Vec<PathBuf>,
}

impl Image {
    /// Finds the parts in the cache; builds or fetches first what is not there yet.
    pub fn prepare(kernel: Kernel, root: Root) -> Result<Self, Error> {
        let args = [root.script_args(), kernel.script_args()].concat();
        Self::new(&Values::from_script("qemu-scripts/guest-image.sh", &args)?)
    }

    fn new(values: &Values) -> Result<Self, Error> {
        let data = values.get("QEMU_DATA")?;
        Ok(Self {
            root: values.get("ROOT")?.into(),
            modules: values.get("MODULES")?.into(),
            kernel: values.get("KERNEL")?.into(),
            initrd: values.get("INITRD")?.into(),
            qemu: values.get("QEMU")?.into(),
            qemu_data: data
                .split(':')
                .filter(|p| !p.is_empty())
                .map(Into::into)
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn parses_what_the_script_prints() {
        let text =
            "ROOT=/r\nKERNEL=/k\nINITRD=/i\nMODULES=/m\nQEMU=/q\nQEMU_DATA=/a/qemu:/a/seabios\n";
        let image = |text: &str| Image::new(&Values::parse(text));
        let found = image(text).unwrap();
        assert_eq!(found.kernel, Path::new("/k"));
        assert_eq!(
            found.qemu_data,
            [Path::new("/a/qemu"), Path::new("/a/seabios")]
        );
        let none = image(&text.replace("/a/qemu:/a/seabios", "")).unwrap();
        assert!(none.qemu_data.is_empty());
        let error = image("ROOT=/r\n").unwrap_err();
        assert!(error.to_string().contains("QEMU_DATA"), "{error}");
    }
}

//! cargo and rustc compile a crate from source, with what it depends on: the sources, the target
//! directory and what runs during the build (build scripts, a procedural macro) are on the volume.
//! The toolchain is the host's, on a second share.

use crate::support::{put, Bench, Config, MINUTES_40, SECONDS_30};
use guest_tests::vm::steps::StepResult;
use guest_tests::vm::{Engine, Share, Steps, Volume};
use std::path::Path;
use std::process::Command;

on_every_volume! {
    #[ignore = "takes minutes"]
    builds_a_crate,
}

const MANIFEST: &str = "\
[package]
name = \"sample\"
version = \"0.1.0\"
edition = \"2021\"
[dependencies]
thiserror = \"2\"
[workspace]
";
const MAIN: &str = r#"
#[derive(Debug, thiserror::Error)]
#[error("built: {0}")]
struct Built(u32);
fn main() {
    println!("{}", Built(42));
}
"#;
const CONFIG: &str = "\
[source.crates-io]
replace-with = \"vendored\"
[source.vendored]
directory = \"vendor\"
";

fn builds_a_crate(engine: Engine) {
    let config = Config::with_programs(engine);
    let steps = Steps::new();
    let sysroot = steps.step("find the toolchain", || {
        output("rustc", &["--print", "sysroot"], None)
    });
    let sysroot = String::from_utf8_lossy(&sysroot).trim().to_owned();
    let toolchain = steps.step("share it", || Ok(Volume::of_folder(Path::new(&sysroot))?));
    let tools = steps.step("start its daemon", || {
        Ok(toolchain.serve_with("toolchain", &["--readonly"])?)
    });
    let share = Share::new(tools.socket(), "toolchain");
    let Some(bench) = Bench::start_with(&config, Some(share)) else {
        return;
    };
    let (steps, guest) = (&bench.steps, &bench.guest);
    steps.step("put the sources on the volume", || {
        let unpack = "mkdir /mnt/sample && tar -x -C /mnt/sample";
        let unpacked = guest.run_with_input(unpack, &sources()?, MINUTES_40)?;
        assert_eq!(unpacked.code, 0, "{unpacked}");
        put(guest, "/mnt/sample/Cargo.toml", MANIFEST)?;
        guest.check("mkdir /mnt/sample/src /mnt/sample/.cargo", SECONDS_30)?;
        put(guest, "/mnt/sample/src/main.rs", MAIN)?;
        put(guest, "/mnt/sample/.cargo/config.toml", CONFIG)
    });
    steps.step("build and run", || {
        guest.check("mkdir /tmp/toolchain", SECONDS_30)?;
        guest.mount("toolchain", "/tmp/toolchain")?;
        let build = "cd /mnt/sample && export PATH=/tmp/toolchain/bin:$PATH CARGO_HOME=/mnt/home &&
            cargo build --offline 2>&1 && target/debug/sample";
        let log = guest.check(build, MINUTES_40)?;
        assert!(log.ends_with("built: 42"), "{log}");
        Ok(())
    });
    steps.step("nothing to do the second time", || {
        let again = "cd /mnt/sample && export PATH=/tmp/toolchain/bin:$PATH CARGO_HOME=/mnt/home &&
            touch -d '1 hour ago' src/main.rs && cargo build --offline 2>&1";
        let log = guest.check(again, MINUTES_40)?;
        assert!(!log.contains("Compiling"), "{log}");
        Ok(())
    });
    bench.finish();
}

/// A tar archive of `vendor/`: the versions that this workspace uses, of crates that it has.
fn sources() -> StepResult<Vec<u8>> {
    let dir = tempfile::tempdir()?;
    std::fs::create_dir(dir.path().join("src"))?;
    std::fs::write(dir.path().join("src/main.rs"), MAIN)?;
    std::fs::write(dir.path().join("Cargo.toml"), MANIFEST)?;
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
    std::fs::copy(lock, dir.path().join("Cargo.lock"))?;
    output(
        "cargo",
        &["vendor", "--offline", "--quiet"],
        Some(dir.path()),
    )?;
    output("tar", &["-c", "vendor", "Cargo.lock"], Some(dir.path()))
}

fn output(program: &str, args: &[&str], dir: Option<&Path>) -> StepResult<Vec<u8>> {
    let mut command = Command::new(program);
    command
        .args(args)
        .current_dir(dir.unwrap_or(Path::new(".")));
    let output = command.output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?}: {}: {said}", output.status).into());
    }
    Ok(output.stdout)
}

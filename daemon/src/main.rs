//! `pfs-virtiofsd`: serves a volume to a VM over virtiofs.

use std::process::ExitCode;

use pfs_virtiofsd::cli::{self, Action};
use pfs_virtiofsd::launch;
use pfs_virtiofsd::report::explain;

fn main() -> ExitCode {
    let options = match cli::parse(std::env::args_os()) {
        Ok(Action::Serve(options)) => options,
        Ok(Action::PrintCapabilities) => {
            print!("{}", cli::CAPABILITIES);
            return ExitCode::SUCCESS;
        }
        // Also help and version, which go to standard output.
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    env_logger::Builder::new()
        .filter_level(options.log_level)
        .init();
    match launch::serve(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error is the log; the end of the program is told at every log level.
            eprintln!("pfs-virtiofsd: {}", explain(&error));
            ExitCode::FAILURE
        }
    }
}

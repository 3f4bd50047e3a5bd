//! `-o source=DIR,cache=none,…`: options as the virtiofsd of QEMU took them, and libvirt before
//! 11.1 gives them.

use clap::ValueEnum;

use super::{timeout, unsupported, Args, Level};

/// Applies a list of options, in order. An error is a sentence that names the option.
pub(super) fn apply(list: &str, args: &mut Args) -> Result<(), String> {
    list.split(',')
        .filter(|option| !option.is_empty())
        .try_for_each(|option| match option.split_once('=') {
            Some((name, value)) => with_value(name, value, args),
            None => flag(option, args),
        })
}

fn with_value(name: &str, value: &str, args: &mut Args) -> Result<(), String> {
    match name {
        "source" => args.shared_dir = Some(value.into()),
        "cache" => args.cache = choice(name, value)?,
        "timeout" => {
            let timeout = timeout::parse(value).map_err(|why| format!("\"-o timeout\": {why}"))?;
            args.entry_timeout = Some(timeout);
            args.attr_timeout = Some(timeout);
        }
        "sandbox" => args.sandbox = choice(name, value)?,
        "log_level" | "loglevel" => {
            args.log_level = match value {
                "err" => Level::Error,
                value => choice(name, value)?,
            }
        }
        _ => return Err(refuse(name)),
    }
    Ok(())
}

fn flag(name: &str, args: &mut Args) -> Result<(), String> {
    match name {
        "xattr" => args.no_xattr = false,
        "no_xattr" => args.no_xattr = true,
        "posix_acl" => args.no_posix_acl = false,
        "no_posix_acl" => args.no_posix_acl = true,
        "writeback" => args.writeback = true,
        "no_writeback" => args.writeback = false,
        "posix_lock" => args.no_posix_lock = false,
        "no_posix_lock" => args.no_posix_lock = true,
        "flock" => args.no_flock = false,
        "no_flock" => args.no_flock = true,
        // What is so anyway.
        "readdirplus" | "no_security_label" | "no_allow_direct_io" | "killpriv_v2" => {}
        _ => return Err(refuse(name)),
    }
    Ok(())
}

fn choice<T: ValueEnum>(name: &str, value: &str) -> Result<T, String> {
    T::from_str(value, false).map_err(|_| {
        let known = T::value_variants().iter();
        let names =
            known.filter_map(|value| Some(value.to_possible_value()?.get_name().to_owned()));
        let names = names.collect::<Vec<_>>().join(", ");
        format!("\"-o {name}={value}\" is not known: {name} is one of {names}")
    })
}

fn refuse(name: &str) -> String {
    match unsupported::why(&name.replace('_', "-")) {
        Some(why) => format!("\"-o {name}\" is not supported: {why}"),
        None => format!("\"-o {name}\" is not an option of this daemon"),
    }
}

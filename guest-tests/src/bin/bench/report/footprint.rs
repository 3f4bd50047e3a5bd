//! The footprint for people.

use comfy_table::{presets, CellAlignment, Table};

use crate::footprint::Measured;

const MIB: f64 = (1 << 20) as f64;

/// One line for each figure.
pub fn render(measured: &Measured) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["footprint", "measured"]);
    for line in lines(measured) {
        table.add_row(line);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

fn lines(measured: &Measured) -> [[String; 2]; 8] {
    let line = |name: &str, value: String| [name.to_owned(), value];
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / MIB);
    let idle = measured.idle_memory;
    let (fds, fds_max) = measured.fds;
    [
        line(
            "start to first answer",
            format!("{:.1} ms", measured.start_ms),
        ),
        line("idle: CPU", format!("{:.3} ms", measured.idle_cpu_ms)),
        line("idle: own memory", mib(idle.own)),
        line("idle: anonymous memory", mib(idle.anonymous)),
        line(
            &format!("{} inodes: own memory for each", measured.inodes),
            format!("{:.1} bytes", measured.bytes_per_inode()),
        ),
        line("descriptors, and most", format!("{fds} of {fds_max}")),
        line(
            "CPU of each first lookup",
            format!("{:.2} us", measured.lookup_cpu_us),
        ),
        line("inodes asked again", measured.asked.to_string()),
    ]
}

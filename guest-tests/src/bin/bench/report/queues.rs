//! What more queues give, for people.

use comfy_table::{presets, CellAlignment, Table};

use crate::queues::{Files, Measured};
use crate::stats::Ratio;

/// One line for each daemon and choice of files.
pub fn render(measured: &[Measured]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([
        "daemon",
        "queues read",
        "queues",
        "one: per second",
        "all: per second",
        "ratio",
        "of the best",
        "one: CPU us",
        "all: CPU us",
        "ratio",
    ]);
    for measured in measured {
        let files = match measured.files {
            Files::Shared => "one file",
            Files::Own => "a file each",
        };
        table.add_row([
            measured.kind.to_string(),
            files.to_owned(),
            measured.queues.to_string(),
            format!("{:.0}", measured.one.rate()),
            format!("{:.0}", measured.all.rate()),
            ratio(measured.rate_ratio()),
            format!("{:.2}", measured.best_rate_ratio()),
            format!("{:.3}", measured.one.cpu_us()),
            format!("{:.3}", measured.all.cpu_us()),
            ratio(measured.cpu_ratio()),
        ]);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

fn ratio(ratio: Option<Ratio>) -> String {
    ratio.map_or_else(String::new, |ratio| {
        let Ratio { median, min, max } = ratio;
        format!("{median:.2} [{min:.2}..{max:.2}]")
    })
}

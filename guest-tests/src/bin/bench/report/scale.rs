//! How bandwidth grows with targets, for people.

use comfy_table::{presets, CellAlignment, Table};

use crate::scale::Point;

const HEADER: [&str; 7] = [
    "targets",
    "write MiB/s",
    "of what they could",
    "CPU us per MiB",
    "read MiB/s",
    "of what they could",
    "CPU us per MiB",
];

/// One line for each number of targets.
pub fn render(points: &[Point]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(HEADER);
    for point in points {
        let [write, read] = points.first().map_or([1.0; 2], |first| point.ratios(first));
        table.add_row([
            point.targets.to_string(),
            format!("{:.1}", point.write.mib_per_s),
            format!("{write:.3}"),
            format!("{:.0}", point.write.cpu_us_per_mib),
            format!("{:.1}", point.read.mib_per_s),
            format!("{read:.3}"),
            format!("{:.0}", point.read.cpu_us_per_mib),
        ]);
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

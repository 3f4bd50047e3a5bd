//! The table for people.

use comfy_table::{presets, CellAlignment, Table};

use crate::compare::{median_of, Measured, Series};
use crate::slice::Slice;
use crate::stats::Ratio;

const HEADER: [&str; 8] = [
    "workload",
    "daemon",
    "per second",
    "latency us",
    "CPU us",
    "CPU ratio [min..max]",
    "rate ratio",
    "floor CPU us",
];

/// One line for each row and daemon. `peer` is whether there are ratios.
pub fn render(rows: &[Measured]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(HEADER);
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for measured in rows {
        for series in &measured.backends {
            table.add_row(line(measured, series));
        }
    }
    table.to_string()
}

fn line(measured: &Measured, series: &Series) -> [String; 8] {
    let peer = measured.peer_of(series);
    let cpu = peer.and_then(|peer| series.ratio(peer, Slice::cpu_us));
    let rate = peer.and_then(|peer| series.ratio(peer, Slice::rate));
    let latency = |slice: &Slice| slice.latency_us().unwrap_or_default();
    let has_latency = series.slices.iter().any(|slice| slice.latency.is_some());
    [
        measured.row.name.to_owned(),
        series.kind.to_string(),
        format!("{:.0}", series.median(Slice::rate)),
        match has_latency {
            true => format!("{:.1}", series.median(latency)),
            false => String::new(),
        },
        format!("{:.2}", series.median(Slice::cpu_us)),
        cpu.map(spread).unwrap_or_default(),
        rate.map(|ratio| format!("{:.2}", ratio.median))
            .unwrap_or_default(),
        format!("{:.2}", median_of(&measured.floor, Slice::cpu_us)),
    ]
}

fn spread(ratio: Ratio) -> String {
    format!("{:.2} [{:.2}..{:.2}]", ratio.median, ratio.min, ratio.max)
}

//! Reports of made-up measurements.

use std::time::Duration;

use super::{json, svg, table};
use crate::backend::Kind;
use crate::compare::{Measured, Series, Settings};
use crate::rows::ROWS;
use crate::slice::Slice;

fn slice(units: u64, cpu_us: u64) -> Slice {
    Slice {
        units,
        elapsed: Duration::from_millis(500),
        cpu: Duration::from_micros(cpu_us),
        latency: Some(Duration::from_micros(7)),
        context_switches: 3,
    }
}

/// Ours takes 1 us each, then 2; virtiofsd 2, then 8.
fn measured() -> Measured {
    Measured {
        row: &ROWS[0],
        backends: vec![
            Series {
                kind: Kind::Striped(4),
                slices: vec![slice(1000, 1000), slice(1000, 2000)],
            },
            Series {
                kind: Kind::Virtiofsd,
                slices: vec![slice(500, 1000), slice(500, 4000)],
            },
        ],
        floor: vec![slice(1000, 250)],
    }
}

#[test]
fn the_table_has_medians_and_ratios() {
    let text = table::render(&[measured()]);
    let line = |kind| text.lines().find(|line| line.contains(kind)).unwrap();
    let cells = |kind| -> Vec<String> {
        let cells = line(kind).split('|').map(|cell| cell.trim().to_owned());
        cells.filter(|cell| !cell.is_empty()).collect()
    };
    let name = ROWS[0].name;
    let ours = [
        name,
        "striped-4",
        "2000",
        "7.0",
        "1.50",
        "0.38 [0.25..0.50]",
        "2.00",
        "0.25",
    ];
    assert_eq!(cells("striped-4"), ours);
    assert_eq!(
        cells("virtiofsd"),
        [name, "virtiofsd", "1000", "7.0", "5.00", "0.25"]
    );
}

#[test]
fn without_a_peer_there_are_no_ratios() {
    let mut measured = measured();
    measured.backends.pop();
    let rows = [measured];
    let text = table::render(&rows);
    let ours = text.lines().find(|line| line.contains("striped-4"));
    assert!(!ours.unwrap().contains('['), "{text}");
    let settings = Settings::default();
    let value = json::render(&rows, &settings);
    assert!(value["rows"][0]["backends"][0]["cpu_ratio"].is_null());
    assert!(!svg::render(&rows).contains(ROWS[0].name));
}

#[test]
fn json_has_every_slice() {
    let value = json::render(&[measured()], &Settings::default());
    let row = &value["rows"][0];
    assert_eq!(row["workload"], ROWS[0].name);
    assert_eq!(row["floor_cpu_us"], 0.25);
    let ours = &row["backends"][0];
    assert_eq!(ours["cpu_ratio"]["median"], 0.375);
    assert_eq!(ours["rate_ratio"]["max"], 2.0);
    assert_eq!(ours["slices"][1]["cpu_s"], 0.002);
    assert_eq!(ours["slices"].as_array().unwrap().len(), 2);
}

#[test]
fn the_plot_has_a_bar_for_each_daemon_but_the_peer() {
    let text = svg::render(&[measured()]);
    assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n"));
    assert!(text.contains(ROWS[0].name));
    // One in the legend, one bar.
    assert_eq!(text.matches("fill=\"#0072b2\"").count(), 2);
    assert!(text.contains(">0.38</text>"));
}

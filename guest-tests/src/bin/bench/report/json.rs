//! All that was measured, for programs.

use serde_json::{json, Value};

use crate::compare::{median_of, Measured, Series, Settings};
use crate::slice::Slice;
use crate::stats::Ratio;

/// The whole comparison.
pub fn render(rows: &[Measured], settings: &Settings) -> Value {
    json!({
        "settings": {
            "rounds": settings.rounds,
            "seconds": settings.pace.duration.as_secs_f64(),
            "driver_poll_us": settings.pace.poll.as_micros() as u64,
            "think_us": settings.pace.think.as_micros() as u64,
            "driver_cpu": settings.pinning.map(|pinning| pinning.driver),
            "daemon_cpu": settings.pinning.map(|pinning| pinning.daemon),
            "in_memory": settings.in_memory,
            "kernel": kernel_release(),
        },
        "rows": rows.iter().map(row).collect::<Vec<_>>(),
    })
}

fn kernel_release() -> Option<String> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    Some(release.trim().to_owned())
}

fn row(measured: &Measured) -> Value {
    let series = measured.backends.iter();
    json!({
        "workload": measured.row.name,
        "depth": measured.row.depth,
        "unit": measured.row.unit,
        "goal_cpu_ratio": measured.row.goal,
        "floor_cpu_us": median_of(&measured.floor, Slice::cpu_us),
        "floor_rate_per_s": median_of(&measured.floor, Slice::rate),
        "backends": series.map(|series| backend(measured, series)).collect::<Vec<_>>(),
    })
}

fn backend(measured: &Measured, series: &Series) -> Value {
    let peer = measured.peer_of(series);
    let ratio_of = |value: fn(&Slice) -> f64| peer.and_then(|peer| series.ratio(peer, value));
    json!({
        "backend": series.kind.to_string(),
        "rate_per_s": series.median(Slice::rate),
        "cpu_us": series.median(Slice::cpu_us),
        "cpu_ratio": ratio_of(Slice::cpu_us).map(ratio),
        "rate_ratio": ratio_of(Slice::rate).map(ratio),
        "slices": series.slices.iter().map(slice).collect::<Vec<_>>(),
    })
}

fn ratio(ratio: Ratio) -> Value {
    json!({ "median": ratio.median, "min": ratio.min, "max": ratio.max })
}

fn slice(slice: &Slice) -> Value {
    json!({
        "units": slice.units,
        "elapsed_s": slice.elapsed.as_secs_f64(),
        "cpu_s": slice.cpu.as_secs_f64(),
        "latency_us": slice.latency_us(),
        "context_switches": slice.context_switches,
    })
}

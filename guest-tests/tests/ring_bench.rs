//! The benchmark does what it says, on our own engines. Nothing here is about time.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn bench(args: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_bench");
    let output = Command::new(program).args(args).output();
    output.expect("the benchmark's binary")
}

fn succeed(args: &[&str]) -> String {
    let output = bench(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {stderr}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// In memory if there is such a place: some rows fill large files.
fn place() -> PathBuf {
    let shm = Path::new("/dev/shm");
    match shm.is_dir() {
        true => shm.to_owned(),
        false => std::env::temp_dir(),
    }
}

/// Compares for a moment; the report, and the plot.
fn compare(dir: &Path, args: &[&str]) -> (Value, String) {
    let reports = tempfile::tempdir().unwrap();
    let json = reports.path().join("report.json");
    let svg = reports.path().join("plot.svg");
    let fixed = ["compare", "--no-pin", "--rounds=1", "--seconds=0.005"];
    let paths = [
        "--dir",
        dir.to_str().unwrap(),
        "--json",
        json.to_str().unwrap(),
        "--svg",
        svg.to_str().unwrap(),
    ];
    succeed(&[&fixed[..], &paths, args].concat());
    let report = std::fs::read_to_string(json).unwrap();
    let plot = std::fs::read_to_string(svg).unwrap();
    (serde_json::from_str(&report).unwrap(), plot)
}

/// The names of the rows in which the backend did something in every turn, and so did the floor.
fn rows_done(report: &Value, backend: &str) -> Vec<String> {
    let mut names = Vec::new();
    for row in report["rows"].as_array().unwrap() {
        let name = row["workload"].as_str().unwrap();
        let floor = row["floor_cpu_us"].as_f64().unwrap();
        assert!(floor > 0.0, "{name}: the floor did nothing");
        for measured in row["backends"].as_array().unwrap() {
            assert_eq!(measured["backend"], backend);
            let slices = measured["slices"].as_array().unwrap();
            assert_eq!(slices.len(), 2, "{name}: there and back");
            for slice in slices {
                assert!(slice["units"].as_u64().unwrap() > 0, "{name}: {slice}");
                assert!(slice["cpu_s"].as_f64().unwrap() > 0.0, "{name}: {slice}");
            }
            names.push(name.to_owned());
        }
    }
    names
}

fn all_rows() -> Vec<String> {
    succeed(&["list"]).lines().map(str::to_owned).collect()
}

fn check_all_rows(backend: &str, left_out: &[&str]) {
    let (report, plot) = compare(&place(), &["--backend", backend]);
    let in_memory = report["settings"]["in_memory"].as_bool().unwrap();
    let mut wanted = all_rows();
    wanted.retain(|name| !left_out.contains(&name.as_str()));
    wanted.retain(|name| !(in_memory && name.contains("cold")));
    assert_eq!(rows_done(&report, backend), wanted);
    // There is nothing to compare with.
    assert!(
        plot.starts_with("<svg ") && !plot.contains("getattr"),
        "{plot}"
    );
}

#[test]
fn every_row_runs_on_a_striped_volume() {
    // Others make no files in its namespace.
    check_all_rows("striped-2", &["lookup-unseen-d16"]);
}

#[test]
fn every_row_runs_on_a_plain_directory() {
    check_all_rows("posix", &[]);
}

#[test]
fn every_row_that_stores_nothing_runs_on_null() {
    check_all_rows(
        "null",
        &["lookup-unseen-d16", "readdirplus", "postmark-d16"],
    );
}

#[test]
fn what_is_cold_is_read_from_a_disk() {
    let args = ["--backend", "striped-2", "--workload", "cold"];
    let (report, _) = compare(&std::env::temp_dir(), &args);
    let in_memory = report["settings"]["in_memory"].as_bool().unwrap();
    let rows = rows_done(&report, "striped-2");
    assert_eq!(rows.is_empty(), in_memory, "{rows:?}");
}

#[test]
fn one_workload_alone_says_whom_to_profile() {
    let dir = place();
    let dir = ["--no-pin", "--dir", dir.to_str().unwrap()];
    let args = ["run", "posix", "create-close-d16", "--seconds", "0.01"];
    let said = succeed(&[&args[..], &dir].concat());
    let (first, rest) = said.split_once('\n').unwrap();
    let pid: u32 = first.strip_prefix("pid ").unwrap().parse().unwrap();
    assert!(pid > 1);
    assert!(rest.starts_with("create-close-d16 on posix: "), "{rest}");
    // It took its daemon with it.
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn what_is_not_there_is_named() {
    for args in [
        &["run", "posix", "no-such-row"][..],
        &["compare", "--workload", "no-such-row"],
        &["compare", "--backend", "no-such-daemon"],
        &["compare", "--backend=null", "--dir", "/no-such-folder"],
    ] {
        let output = bench(args);
        assert!(!output.status.success(), "{args:?}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("no-such-"), "{args:?}: {stderr}");
    }
}

#[test]
fn queues_are_filled_and_served_together() {
    let place = place();
    let dir = place.to_str().unwrap();
    let table = succeed(&["queues", "--backend=null", "--rounds=1", "--dir", dir]);
    let lines: Vec<_> = table.lines().filter(|line| line.contains("null")).collect();
    assert_eq!(lines.len(), 2, "{table}");
    for (line, files) in lines.iter().zip(["one file", "a file each"]) {
        assert!(line.contains(files), "{line}");
        let rates = line.split('|').skip(4).take(2);
        for rate in rates {
            assert!(rate.trim().parse::<f64>().unwrap() > 0.0, "{line}");
        }
    }
}

//! A plot of the ratios to virtiofsd, as SVG.

use std::fmt::{self, Write};

use crate::backend::Kind;
use crate::compare::{Measured, Series};
use crate::slice::Slice;
use crate::stats::Ratio;

const WIDTH: f64 = 900.0;
/// Where the bars begin: names are left of it.
const BARS_X: f64 = 220.0;
/// Room right of the longest bar, for its number.
const MARGIN: f64 = 60.0;
const TITLE_HEIGHT: f64 = 64.0;
const AXIS_HEIGHT: f64 = 28.0;
const BAR_HEIGHT: f64 = 13.0;
const ROW_GAP: f64 = 9.0;
/// Ratios beyond it are cut off: their number says what they are.
const RATIO_MAX: f64 = 2.0;
/// Told apart also by those who see few colours (Okabe and Ito).
const COLOURS: [&str; 5] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#999999"];

/// One group of bars for each row that has ratios; a bar is the median, the line across it the
/// smallest and the largest.
pub fn render(rows: &[Measured]) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = Plot::new(rows).write(&mut text);
    text
}

struct Plot<'a> {
    groups: Vec<(&'static str, Vec<(&'a Series, Ratio)>)>,
    kinds: Vec<Kind>,
}

impl<'a> Plot<'a> {
    fn new(rows: &'a [Measured]) -> Plot<'a> {
        let groups: Vec<_> = rows.iter().map(group).filter(|g| !g.1.is_empty()).collect();
        let mut kinds = Vec::new();
        for (series, _) in groups.iter().flat_map(|group| &group.1) {
            if !kinds.contains(&series.kind) {
                kinds.push(series.kind);
            }
        }
        Plot { groups, kinds }
    }

    fn height(&self) -> f64 {
        let bars: usize = self.groups.iter().map(|group| group.1.len()).sum();
        let gaps = self.groups.len() as f64 * ROW_GAP;
        TITLE_HEIGHT + bars as f64 * BAR_HEIGHT + gaps + AXIS_HEIGHT
    }

    fn colour(&self, kind: Kind) -> &'static str {
        let index = self.kinds.iter().position(|&k| k == kind);
        COLOURS[index.unwrap_or_default() % COLOURS.len()]
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        let height = self.height();
        writeln!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
             <text x=\"12\" y=\"24\" font-size=\"15\">CPU time of the daemon for each operation, \
             virtiofsd = 1 (less is better)</text>"
        )?;
        self.write_legend(out)?;
        self.write_axis(out, height)?;
        let mut y = TITLE_HEIGHT;
        for (name, bars) in &self.groups {
            let middle = y + bars.len() as f64 * BAR_HEIGHT / 2.0 + 4.0;
            let x = BARS_X - 8.0;
            writeln!(
                out,
                "<text x=\"{x}\" y=\"{middle}\" text-anchor=\"end\">{name}</text>"
            )?;
            for (series, ratio) in bars {
                write_bar(out, y, self.colour(series.kind), *ratio)?;
                y += BAR_HEIGHT;
            }
            y += ROW_GAP;
        }
        writeln!(out, "</svg>")
    }

    fn write_legend(&self, out: &mut String) -> fmt::Result {
        for (index, kind) in self.kinds.iter().enumerate() {
            let (x, colour) = (BARS_X + 110.0 * index as f64, self.colour(*kind));
            let label_x = x + 16.0;
            writeln!(
                out,
                "<rect x=\"{x}\" y=\"36\" width=\"11\" height=\"11\" fill=\"{colour}\"/>\
                 <text x=\"{label_x}\" y=\"46\">{kind}</text>"
            )?;
        }
        Ok(())
    }

    fn write_axis(&self, out: &mut String, height: f64) -> fmt::Result {
        let (top, bottom) = (TITLE_HEIGHT - 6.0, height - AXIS_HEIGHT);
        for step in 0..=4 {
            let ratio = RATIO_MAX * f64::from(step) / 4.0;
            let (x, label_y) = (bar_end(ratio), bottom + 16.0);
            let colour = if ratio == 1.0 { "#000000" } else { "#dddddd" };
            writeln!(
                out,
                "<line x1=\"{x}\" y1=\"{top}\" x2=\"{x}\" y2=\"{bottom}\" stroke=\"{colour}\"/>\
                 <text x=\"{x}\" y=\"{label_y}\" text-anchor=\"middle\">{ratio:.1}</text>"
            )?;
        }
        Ok(())
    }
}

fn group(measured: &Measured) -> (&'static str, Vec<(&Series, Ratio)>) {
    let ratio = |series| {
        let peer = measured.peer_of(series)?;
        Some((series, series.ratio(peer, Slice::cpu_us)?))
    };
    let bars = measured.backends.iter().filter_map(ratio);
    (measured.row.name, bars.collect())
}

fn bar_end(ratio: f64) -> f64 {
    let width = WIDTH - BARS_X - MARGIN;
    BARS_X + width * ratio.clamp(0.0, RATIO_MAX) / RATIO_MAX
}

fn write_bar(out: &mut String, y: f64, colour: &str, ratio: Ratio) -> fmt::Result {
    let (end, low, high) = (
        bar_end(ratio.median),
        bar_end(ratio.min),
        bar_end(ratio.max),
    );
    let (width, height) = (end - BARS_X, BAR_HEIGHT - 2.0);
    let (middle, label_x, label_y) = (y + height / 2.0, high + 5.0, y + height - 1.0);
    let median = ratio.median;
    writeln!(
        out,
        "<rect x=\"{BARS_X}\" y=\"{y}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{colour}\"/>\
         <line x1=\"{low:.1}\" y1=\"{middle}\" x2=\"{high:.1}\" y2=\"{middle}\" stroke=\"#333333\"/>\
         <text x=\"{label_x:.1}\" y=\"{label_y}\" font-size=\"10\">{median:.2}</text>"
    )
}

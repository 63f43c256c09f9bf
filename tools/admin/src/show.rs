//! Tables, as text for people.

use std::io::{self, Write};

use format_spec::path::Printable;

/// A length as a count.
pub(crate) fn wide(len: usize) -> u64 {
    u64::try_from(len).expect("a length fits in 64 bits")
}

/// Writes rows of cells, each column as wide as its widest cell. A cell is one line, whatever it holds.
pub(crate) fn table<const N: usize>(out: &mut dyn Write, rows: &[[impl AsRef<str>; N]]) -> io::Result<()> {
    let plain = |cell: &str| Printable(cell.as_bytes()).to_string();
    let rows: Vec<[String; N]> =
        rows.iter().map(|row| row.each_ref().map(|cell| plain(cell.as_ref()))).collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

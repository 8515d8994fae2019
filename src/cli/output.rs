//! What the command lines print: tables in Go's tabwriter layout, and JSON in Go's layout.
use serde::Serialize;
use std::io::Write;

/// Rows of cells in columns at least 12 wide, three spaces apart (Go's `tabwriter.NewWriter(w, 12, 1, 3, ' ', 0)`,
/// which runc's and docker's tables come from). The last cell of a row is not padded.
pub fn table(rows: &[Vec<String>]) -> String {
    const MINIMUM: usize = 12;
    const GAP: usize = 3;
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let widest = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count() + GAP);
        widest.max().unwrap_or(0).max(MINIMUM)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (cell, width) in row.iter().zip(&widths).take(row.len().saturating_sub(1)) {
            text.push_str(cell);
            let padding = width - cell.chars().count();
            text.extend(std::iter::repeat_n(' ', padding));
        }
        text.push_str(row.last().map_or("", String::as_str));
        text.push('\n');
    }
    text
}

/// JSON with `indent` for each level.
pub fn json(value: &impl Serialize, indent: &[u8]) -> serde_json::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent);
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter))?;
    Ok(bytes)
}

/// Writes to standard output. `println!` would panic when a reader like `head` has gone.
pub fn stdout(bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes.as_ref())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_looks_like_runcs() {
        let cells = |row: &str| row.split('|').map(String::from).collect();
        let rows = [
            "ID|PID|STATUS|BUNDLE|CREATED|OWNER",
            "x1|0|stopped|/tmp/occli/b|2026-11-22T10:27:21.808969466Z|root",
        ];
        let text = table(&rows.map(cells));
        assert_eq!(
            text,
            "ID          PID         STATUS      BUNDLE         CREATED                          OWNER\n\
             x1          0           stopped     /tmp/occli/b   2026-11-22T10:27:21.808969466Z   root\n"
        );
    }
}

//! Columns of text.

/// Aligns columns: the first to the left, the others to the right. Rows have equal lengths.
pub(super) fn table<R: AsRef<[String]>>(rows: &[R]) -> String {
    let columns = rows.first().map_or(0, |row| row.as_ref().len());
    let width = |column: usize| {
        rows.iter().map(|row| row.as_ref()[column].chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &R| {
        let cell = |(i, (cell, &width)): (usize, (&String, &usize))| {
            if i == 0 { format!("{cell:<width$}") } else { format!("   {cell:>width$}") }
        };
        let line: String = row.as_ref().iter().zip(&widths).enumerate().map(cell).collect();
        line.trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_in_line() {
        let rows = [["a", "b"], ["long", "12345"], ["µ", ""]].map(|row| row.map(String::from));
        assert_eq!(table(&rows), "a          b\nlong   12345\nµ\n");
        assert_eq!(table::<[String; 0]>(&[]), "");
    }
}

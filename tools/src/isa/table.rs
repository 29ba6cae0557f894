//! The committed tables of what compilers make of programs, one for each version of Mesa: how they
//! are written and read. A line is a program on a family.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use super::{
    figures::{Figures, MainLoop},
    report::Row,
};

/// The rows of a family, by the name of the program.
pub type Rows = BTreeMap<String, Row>;

/// A table: the rows of each family.
pub type Table = BTreeMap<String, Rows>;

/// The file of this version of the driver, as in `Mesa 22.3.6`. What distributions add to the
/// number (`24.0.9-0ubuntu0.1`) is left out.
pub fn file(version: &str) -> PathBuf {
    let number = version.strip_prefix("Mesa ").unwrap_or(version);
    let added =
        |&(at, _): &(usize, &str)| number[at + 1..].starts_with(|c: char| c.is_ascii_digit());
    let end = number.match_indices('-').find(added).map_or(number.len(), |(at, _)| at);
    let name = format!("mesa-{}.txt", &number[..end]);
    Path::new(env!("CARGO_MANIFEST_DIR")).join("isa").join(name)
}

/// What stands above the rows.
const HEAD: &str = "\
# What Mesa's compiler makes of every program that a GPU may be given: registers and memory, how
# often the loops inside of the main loop run (0: not known), and what an iteration takes on the
# path with the most vector instructions; after these numbers, on that with the fewest, if it is
# another. A program with loops that load nothing is counted as a whole.
# `isa --help` says how it is shown and written again, tools/src/isa/figures.rs what the names mean.
";

/// Names of the numbers before the loop.
const OF_ROW: [&str; 7] = ["vgprs", "sgprs", "spills", "scratch", "shared", "code", "waves"];

/// The text of a table.
pub fn write(table: &Table) -> String {
    let mut text = HEAD.to_owned();
    for (family, rows) in table {
        let wide = rows.keys().map(String::len).max().unwrap_or(0);
        let (of_row, of_loop) = (OF_ROW.join(" "), Figures::NAMES.join(" "));
        let name = "# program";
        writeln!(text, "\n[{family}]\n{name:wide$} | {of_row} | {:11} | {of_loop}", "inner loops")
            .expect("a string takes all");
        for (name, row) in rows {
            writeln!(text, "{name:wide$} | {}", line(row)).expect("a string takes all");
        }
    }
    text
}

fn line(row: &Row) -> String {
    let Row { vgprs, sgprs, spills, scratch, shared, code, waves, main } = row;
    let of_row = [vgprs, sgprs, spills, scratch, shared, code, waves].map(|&number| number);
    let mut groups = vec![columns(&OF_ROW, &of_row)];
    if let Some(MainLoop { least, most, inner }) = main {
        let inner: Vec<String> = inner.iter().map(u32::to_string).collect();
        let inner = if inner.is_empty() { "-".to_owned() } else { inner.join(" ") };
        groups.push(format!("{inner:11}"));
        groups.push(columns(&Figures::NAMES, &most.numbers()));
        if least != most {
            groups.push(columns(&Figures::NAMES, &least.numbers()));
        }
    }
    groups.join(" | ")
}

/// Numbers below their names.
fn columns(names: &[&str], numbers: &[u32]) -> String {
    let column = |(name, number): (&&str, &u32)| format!("{number:>0$}", name.len());
    names.iter().zip(numbers).map(column).collect::<Vec<_>>().join(" ")
}

/// Reads what [`write()`] has written.
///
/// # Errors
///
/// The line that cannot be read.
pub fn read(text: &str) -> Result<Table, String> {
    let mut table = Table::new();
    let mut family = String::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            name.clone_into(&mut family);
            continue;
        }
        let groups: Vec<&str> = line.split('|').map(str::trim).collect();
        let (name, row) = groups
            .split_first()
            .and_then(|(name, groups)| Some((name, row(groups)?)))
            .ok_or_else(|| format!("line {number} is no row: {line}"))?;
        let rows = table.entry(family.clone()).or_default();
        if rows.insert((*name).to_owned(), row).is_some() {
            return Err(format!("line {number}: {name} is there twice"));
        }
    }
    Ok(table)
}

fn row(groups: &[&str]) -> Option<Row> {
    let numbers = |group: &str| -> Option<Vec<u32>> {
        group.split_whitespace().map(|number| number.parse().ok()).collect()
    };
    let (head, rest) = groups.split_first()?;
    let [vgprs, sgprs, spills, scratch, shared, code, waves] = numbers(head)?.try_into().ok()?;
    let figures = |group: &str| numbers(group)?.try_into().ok().map(Figures::of_numbers);
    let main = match rest {
        [] => None,
        [inner, most] | [inner, most, _] => {
            let inner = if *inner == "-" { Vec::new() } else { numbers(inner)? };
            let most = figures(most)?;
            let least = rest.get(2).map_or(Some(most), |group| figures(group))?;
            Some(MainLoop { least, most, inner })
        }
        _ => return None,
    };
    Some(Row { vgprs, sgprs, spills, scratch, shared, code, waves, main })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let most = Figures::of_numbers([12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]);
        let least = Figures { vector: 1, ..most };
        let same = MainLoop { least: most, most, inner: vec![4, 0] };
        let row = Row { vgprs: 1, sgprs: 2, spills: 3, scratch: 4, shared: 5, ..Row::default() };
        let rows = [
            ("a", row.clone()),
            ("b/q4 WG=1", Row { code: 6, waves: 7, main: Some(same.clone()), ..row.clone() }),
            ("c", Row { main: Some(MainLoop { least, inner: vec![], ..same }), ..row }),
        ];
        let rows: Rows = rows.into_iter().map(|(name, row)| (name.to_owned(), row)).collect();
        let table = Table::from([("RDNA2".into(), rows.clone()), ("RDNA3".into(), rows)]);
        assert_eq!(read(&write(&table)), Ok(table));
    }

    #[test]
    fn a_broken_line_is_told() {
        for line in ["a", "a | 1 2", "a | 1 2 3 4 5 6 7 | -", "a | 1 2 3 4 5 6 x"] {
            assert!(read(line).is_err_and(|error| error.contains("line 1")), "{line}");
        }
        let twice = "[RDNA3]\na | 1 2 3 4 5 6 7\na | 1 2 3 4 5 6 7\n";
        assert!(read(twice).is_err_and(|error| error.contains("twice")));
    }

    #[test]
    fn a_file_is_named_by_the_version() {
        for (version, name) in [
            ("Mesa 22.3.6", "mesa-22.3.6.txt"),
            ("Mesa 24.0.9-0ubuntu0.1", "mesa-24.0.9.txt"),
            ("Mesa 25.1.0-rc2", "mesa-25.1.0-rc2.txt"),
        ] {
            assert_eq!(file(version).file_name(), Some(name.as_ref()));
        }
    }
}

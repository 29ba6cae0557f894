//! Which rows a self-test runs, and with which tunings.

use std::{fmt, str::FromStr};

use grok_wgpu::lab::{
    base::error::{Error, Result},
    kernels::Case,
    machine::{binder::Dispatch, gpu::Gpu, host::Host},
    selftest::{self, ways},
    variants::{Setting, Tuning, VARIANTS},
};

use super::Options;

/// A row with one of its tunings.
pub(super) struct Chosen {
    /// Its place among the cases.
    at: usize,
    /// Name of the tuning.
    pub(super) tuning: String,
    pub(super) value: Tuning,
}

impl Chosen {
    /// The row.
    pub(super) fn case<'a>(&self, cases: &'a [Case]) -> &'a Case {
        &cases[self.at]
    }

    /// Its name, as [`selftest::Row::id`] has it.
    pub(super) fn id(&self, cases: &[Case]) -> String {
        format!("{} [{}]", self.case(cases).full_name(), self.tuning)
    }

    /// What is dispatched, with operands that have shapes but no values.
    pub(super) fn dispatch(&self, cases: &[Case]) -> Dispatch {
        let kernel = self.case(cases).build(&mut Host::of_shapes());
        kernel.record(&self.value).expect("`ways` recorded it")
    }
}

/// One of several parts of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shard {
    /// From 1.
    part: usize,
    of: usize,
}

impl Shard {
    pub(super) fn is_first(self) -> bool {
        self.part == 1
    }

    /// Whether the row at this place belongs to it. Rows are dealt in turn, so that slow kernels
    /// are in all parts.
    fn has(self, at: usize) -> bool {
        at % self.of == self.part - 1
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no part: wanted I/N with 1 ≤ I ≤ N, as in 2/4");
        let (part, of) = text.split_once('/').ok_or_else(wrong)?;
        let number = |text: &str| text.parse::<usize>().map_err(|_| wrong());
        let (part, of) = (number(part)?, number(of)?);
        if part == 0 || part > of { Err(wrong()) } else { Ok(Self { part, of }) }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.part, self.of)
    }
}

/// The profile whose rows are looked through: names may be those of random rows, and only the full
/// profile has these.
pub(super) fn guards(options: &Options) -> selftest::Profile {
    if options.case.is_some() || !options.row.is_empty() {
        selftest::Profile::Full
    } else {
        options.profile.into()
    }
}

/// The rows that the options ask for.
///
/// # Errors
///
/// [`Error::Usage`] if there is no such kernel or row.
pub(super) fn cases(options: &Options) -> Result<Vec<Case>> {
    let mut cases = guards(options).cases();
    let mut names: Vec<&str> = cases.iter().map(|case| case.kernel).collect();
    names.dedup();
    if let Some(kernel) = &options.kernel
        && !names.contains(&kernel.as_str())
    {
        return Err(Error::Usage(format!(
            "no kernel is called `{kernel}`; there are: {}",
            names.join(", ")
        )));
    }
    for row in &options.row {
        if !cases.iter().any(|case| tuning_of(row, case).is_some()) {
            return Err(Error::Usage(format!("--row: no row is called `{row}`")).with_hint(
                "`selftest --list` shows the names; `--case TEXT` finds what contains a text.",
            ));
        }
    }
    cases.retain(|case| {
        options.kernel.as_ref().is_none_or(|kernel| case.kernel == kernel)
            && options.case.as_ref().is_none_or(|text| case.is_meant_by(text))
            && (options.row.is_empty()
                || options.row.iter().any(|row| tuning_of(row, case).is_some()))
    });
    if cases.is_empty() {
        return Err(Error::Usage("no row of the table has this name".into())
            .with_hint("`selftest --list` shows the names."));
    }
    Ok(cases)
}

/// The tuning that `row` names after this case's name, empty if it names none; `None` if `row` is
/// not about this case.
fn tuning_of<'a>(row: &'a str, case: &Case) -> Option<&'a str> {
    let rest = row.strip_prefix(case.full_name().as_str())?;
    if rest.is_empty() { Some("") } else { rest.strip_prefix(" [")?.strip_suffix(']') }
}

/// The rows with their tunings on this device, those that give the same dispatch once.
///
/// # Errors
///
/// [`Error::Usage`] if there is no such tuning, or the device has not what it needs.
pub(super) fn choose(options: &Options, cases: &[Case], gpu: &Gpu) -> Result<Vec<Chosen>> {
    let usual = match &options.tuning {
        None => selftest::Profile::from(options.profile).tunings(gpu),
        Some(text) => meant("--tuning", text, gpu)?,
    };
    let mut chosen = Vec::new();
    for (at, case) in cases.iter().enumerate() {
        let named = options.row.iter().filter_map(|row| tuning_of(row, case));
        let mut tunings = Vec::new();
        for name in named.clone().filter(|name| !name.is_empty()) {
            tunings.extend(meant("--row", name, gpu)?);
        }
        // Without a row by that name, or with one that leaves the tuning open.
        if tunings.is_empty() || named.clone().any(str::is_empty) {
            tunings.extend(usual.iter().cloned());
        }
        let ways = ways(case, &tunings)?;
        chosen.extend(ways.into_iter().map(|(tuning, value)| Chosen { at, tuning, value }));
    }
    if let Some(shard) = options.shard {
        let mut at = 0..;
        chosen.retain(|_| at.next().is_some_and(|at| shard.has(at)));
        if chosen.is_empty() {
            return Err(Error::Usage(format!("--shard {shard}: there are too few rows for it")));
        }
    }
    Ok(chosen)
}

/// Every case with one tuning.
#[cfg(test)]
pub(super) fn all(cases: &[Case], value: &Tuning) -> Vec<Chosen> {
    let one = |at| Chosen { at, tuning: "gpu".into(), value: value.clone() };
    (0..cases.len()).map(one).collect()
}

/// The tunings that `text` selects, with their names: all, one by its name, those of a variant, or
/// a variant with sizes.
fn meant(option: &str, text: &str, gpu: &Gpu) -> Result<Vec<(String, Tuning)>> {
    let wrong = |what: String| Error::Usage(format!("{option} {text}: {what}"));
    let on = gpu.caps().capabilities();
    let mut all = selftest::Profile::Full.tunings(gpu);
    if text == "all" {
        return Ok(all);
    }
    if all.iter().any(|(name, _)| name == text) {
        all.retain(|(name, _)| name == text);
        return Ok(all);
    }
    if let Some(variant) = VARIANTS.iter().find(|variant| variant.name() == text) {
        variant.needs(&on).map_err(|why| wrong(why.to_string()))?;
        all.retain(|(name, _)| name.split(' ').next() == Some(text));
        return Ok(all);
    }
    let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
    let setting: Setting = text
        .parse()
        .map_err(|what| wrong(format!("{what}; this device has {}, all", names.join(", "))))?;
    setting.runs_on(&on).map_err(|why| wrong(why.to_string()))?;
    Ok(vec![(text.to_owned(), Tuning::by(&on, setting))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_disjoint_and_complete() {
        let parts: Vec<Shard> =
            ["1/3", "2/3", "3/3"].map(|text| text.parse().expect("a part")).into();
        for at in 0..100 {
            assert_eq!(parts.iter().filter(|part| part.has(at)).count(), 1, "{at}");
        }
        assert!(parts[0].is_first() && !parts[1].is_first());
        for text in ["0/3", "4/3", "1", "a/b", "1/0", "-1/2", ""] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }

    /// Names of random rows have brackets of their own.
    #[test]
    fn a_name_means_one_row() {
        let mut cases = selftest::Profile::Full.cases();
        cases.retain(|case| case.kernel == "rms_norm" || case.name.ends_with(']'));
        let name = "rms_norm/1x8 normal";
        let meant = |row: &str| {
            let tunings = cases.iter().filter_map(|case| tuning_of(row, case));
            tunings.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(meant(name), [""]);
        assert_eq!(meant(&format!("{name} [spread 8]")), ["spread 8"]);
        assert!(meant("rms_norm/1x8").is_empty());
        assert!(meant("rms_norm/1x8 normal [").is_empty());
        for case in cases.iter().filter(|case| case.name.ends_with(']')).take(20) {
            assert_eq!(meant(&case.full_name()), [""], "{case:?}");
        }
    }
}

//! How fast the parts of a computer move and multiply weights, and how many tokens a second follow
//! from that and from what a pass reads from where.

use super::{placement::Placed, traffic::Traffic};
use crate::{
    base::{
        error::{Error, Result},
        tensor::DType,
    },
    variants::Kept,
};

/// Something of which it matters how fast it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rate {
    /// Bytes of weights a second that the device reads of its own memory and multiplies, for a
    /// generated token.
    Device,
    /// Bytes a second that the device reads of pinned memory of the host.
    Link,
    /// Bytes a second that are written to the device's memory.
    Upload,
    /// Bytes a second of the model's files, read by several threads from the disk.
    Files,
    /// The same of what the system has kept of them in memory.
    Cached,
    /// Bytes of weights a second that the CPU reads of its memory and multiplies.
    Cpu,
    /// Floating-point operations a second of the products of a prompt.
    Operations,
    /// Seconds from the submission of hardly any work until its result is on the host.
    Segment,
    /// Seconds of a dispatch with hardly any work.
    Dispatch,
}

impl Rate {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Device,
        Self::Link,
        Self::Upload,
        Self::Files,
        Self::Cached,
        Self::Cpu,
        Self::Operations,
        Self::Segment,
        Self::Dispatch,
    ];

    /// Its name in files and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Device => "device_bytes_per_second",
            Self::Link => "link_bytes_per_second",
            Self::Upload => "upload_bytes_per_second",
            Self::Files => "file_bytes_per_second",
            Self::Cached => "cached_bytes_per_second",
            Self::Cpu => "cpu_bytes_per_second",
            Self::Operations => "operations_per_second",
            Self::Segment => "segment_seconds",
            Self::Dispatch => "dispatch_seconds",
        }
    }

    /// What it is, in words.
    pub const fn what(self) -> &'static str {
        match self {
            Self::Device => "weights in the device's memory",
            Self::Link => "pinned memory, read by the device",
            Self::Upload => "writes to the device",
            Self::Files => "files, from the disk",
            Self::Cached => "files, from the system's cache",
            Self::Cpu => "weights that the CPU multiplies",
            Self::Operations => "products of a prompt",
            Self::Segment => "one submission and its result",
            Self::Dispatch => "one dispatch",
        }
    }

    /// Whether it is seconds rather than something by the second.
    pub const fn is_seconds(self) -> bool {
        matches!(self, Self::Segment | Self::Dispatch)
    }
}

/// The name of a rate among what is kept of an adapter: that of products has the type of their
/// weights, and that of files their folder, if they are a model's. That of the device's memory has
/// both, if it was measured with kernels of a model's sizes.
pub fn key(rate: Rate, dtype: DType, folder: Option<&str>) -> String {
    let name = rate.name();
    match (rate, folder) {
        (Rate::Device, Some(folder)) => format!("{name} {dtype} {folder}"),
        (Rate::Device | Rate::Link | Rate::Cpu | Rate::Operations, _) => format!("{name} {dtype}"),
        (Rate::Files | Rate::Cached, Some(folder)) => format!("{name} {folder}"),
        _ => name.to_owned(),
    }
}

/// A kind of adapter, by which rates are guessed that nobody has measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A GPU with memory of its own.
    Discrete,
    /// A GPU in the computer's memory.
    Integrated,
    /// A program on the CPU.
    Software,
}

/// How fast the parts of a computer are. All values are finite and more than zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// In the order of [`Rate::ALL`]: the value, and whether it was measured.
    of: [(f64, bool); Rate::ALL.len()],
}

impl Rates {
    /// What is assumed of an adapter where nothing was measured: of a middling desktop of its kind,
    /// with a bus of 32 GB/s and a disk without moving parts, or of software on some cores.
    pub const fn assumed(kind: Kind) -> Self {
        let of = match kind {
            Kind::Discrete => [400e9, 20e9, 8e9, 3e9, 8e9, 30e9, 10e12, 100e-6, 4e-6],
            Kind::Integrated => [60e9, 40e9, 8e9, 3e9, 8e9, 30e9, 1.5e12, 150e-6, 10e-6],
            Kind::Software => [4e9, 4e9, 2e9, 1e9, 4e9, 10e9, 30e9, 200e-6, 30e-6],
        };
        let mut rates = Self { of: [(0.0, false); Rate::ALL.len()] };
        let mut at = 0;
        while at < of.len() {
            rates.of[at].0 = of[at];
            at += 1;
        }
        rates
    }

    /// The same with a rate that was measured, or that somebody knows.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] unless it is finite and more than zero.
    pub fn with(mut self, rate: Rate, value: f64) -> Result<Self> {
        if !value.is_finite() || value <= 0.0 {
            return Err(Error::Usage(format!(
                "{} is {value}, expected a number above zero: `tune --rates` measures it",
                rate.name()
            )));
        }
        self.of[rate as usize] = (value, true);
        Ok(self)
    }

    /// The same with what was measured on an adapter, for weights of type `dtype` in a folder.
    ///
    /// What is not known of the folder is that of a scratch file, or of a large matrix, if one was
    /// measured.
    ///
    /// # Errors
    ///
    /// Those of [`Rates::with`].
    pub fn heeding(self, kept: &Kept, dtype: DType, folder: Option<&str>) -> Result<Self> {
        let mut rates = self;
        for rate in Rate::ALL {
            let known = |folder| kept.rates.get(&key(rate, dtype, folder)).copied();
            let general = (rate == Rate::Device).then_some(kept.bandwidth).flatten();
            let value = known(folder).or_else(|| known(None)).or(general.map(|rate| rate as f64));
            if let Some(value) = value {
                rates = rates.with(rate, value)?;
            }
        }
        Ok(rates)
    }

    /// How fast it is: bytes or operations by the second, or seconds.
    pub fn get(&self, rate: Rate) -> f64 {
        self.of[rate as usize].0
    }

    /// Whether it was measured, or somebody said it.
    pub fn is_measured(&self, rate: Rate) -> bool {
        self.of[rate as usize].1
    }
}

/// Memory of the host that has weights which are not on the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Bytes of files that the system may keep in memory.
    pub cached: u64,
    /// Bytes of weights that the CPU may keep for its products.
    pub kept: u64,
}

/// Seconds of a pass, and what they follow from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expected {
    /// Tokens of the pass.
    tokens: u32,
    /// Seconds that the device computes.
    pub device: f64,
    /// Seconds in which weights cross the bus from pinned memory.
    pub link: f64,
    /// Seconds in which the device waits for weights from files.
    pub files: f64,
    /// Seconds in which the CPU computes, or reads what it computes with.
    pub cpu: f64,
    /// Seconds of submissions and dispatches apart from their work.
    pub calls: f64,
    /// Whether all rates that count here were measured.
    pub measured: bool,
}

impl Expected {
    /// How long a pass takes: what happens at once counts once, and the rest adds up.
    ///
    /// - The device waits while weights are brought, since only a segment's result says which they
    ///   are. Where that is known before, threads read while a segment runs, but no more of it than
    ///   they may have read ahead. A segment takes its part of the device's time, by the weights
    ///   that it multiplies; what of the reading is longer is waited for.
    /// - Weights are read by several threads and written to the device at the same time, so the
    ///   slower of the two counts.
    /// - Files come from the system's cache as far as `room` has place for all that is stored.
    /// - The CPU computes while the device waits, and after its weights were read, unless it keeps
    ///   them.
    pub fn of(traffic: &Traffic, rates: &Rates, room: Room) -> Self {
        // What the CPU keeps takes its place from what the system keeps.
        let cached = room.cached.saturating_sub(room.kept.min(traffic.cpu_all));
        let room = Room { cached, ..room };
        let needed = |rate| needs(traffic, room, rate);
        let measured = Rate::ALL.into_iter().all(|rate| rates.is_measured(rate) || !needed(rate));
        let time = |amount: u64, rate| amount as f64 / rates.get(rate);
        let cached = share(room.cached, traffic.stored);
        let read = cached / rates.get(Rate::Cached) + (1.0 - cached) / rates.get(Rate::Files);
        let computes =
            time(traffic.device, Rate::Device).max(time(traffic.operations, Rate::Operations));
        let calls = traffic.segments as f64 * rates.get(Rate::Segment)
            + traffic.dispatches as f64 * rates.get(Rate::Dispatch);
        let link = time(traffic.link, Rate::Link);
        let runs = (computes + link + calls) * share(traffic.under, traffic.active);
        let hidden = (traffic.ahead as f64 * read).min(runs);
        let brought = (traffic.files + traffic.ahead) as f64;
        let away = 1.0 - share(room.kept, traffic.cpu_all);
        Self {
            tokens: traffic.tokens,
            device: computes,
            link,
            files: (brought * read - hidden).max(brought / rates.get(Rate::Upload)),
            cpu: time(traffic.cpu, Rate::Cpu) + traffic.cpu as f64 * away * read,
            calls,
            measured,
        }
    }

    /// All seconds.
    pub fn seconds(&self) -> f64 {
        self.device + self.link + self.files + self.cpu + self.calls
    }

    /// Tokens a second.
    pub fn tokens_per_second(&self) -> f64 {
        f64::from(self.tokens) / self.seconds()
    }
}

/// How much of `all` is in `room`.
fn share(room: u64, all: u64) -> f64 {
    if all == 0 { 1.0 } else { (room as f64 / all as f64).min(1.0) }
}

/// Whether the time of a pass depends on a rate.
fn needs(traffic: &Traffic, room: Room, rate: Rate) -> bool {
    let brings = traffic.files > 0 || traffic.ahead > 0;
    let reads = brings || (traffic.cpu > 0 && room.kept < traffic.cpu_all);
    match rate {
        Rate::Device => traffic.device > 0,
        Rate::Link => traffic.link > 0,
        Rate::Upload => brings,
        Rate::Files => reads && room.cached < traffic.stored,
        Rate::Cached => reads && room.cached > 0,
        Rate::Cpu => traffic.cpu > 0,
        Rate::Operations => traffic.operations > 0,
        Rate::Segment => traffic.segments > 0,
        Rate::Dispatch => traffic.dispatches > 0,
    }
}

/// What is expected of a placement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outlook {
    /// A generated token.
    pub token: Expected,
    /// A generated token, if the CPU computes the experts and dense MLPs that would be brought.
    /// `None` if there are none.
    pub on_cpu: Option<Expected>,
    /// A chunk of a prompt.
    pub prompt: Expected,
}

impl Outlook {
    /// What is expected of a placement at these rates.
    pub fn of(placed: &Placed, rates: &Rates, room: Room) -> Self {
        let (token, cpu, prompt) = (&placed.token, &placed.on_cpu, &placed.prompt);
        Self {
            token: Expected::of(token, rates, room),
            on_cpu: (cpu.cpu > 0).then(|| Expected::of(cpu, rates, room)),
            prompt: Expected::of(prompt, rates, room),
        }
    }

    /// A generated token where the CPU computes, or where it does not.
    pub fn token(&self, on_cpu: bool) -> Expected {
        self.on_cpu.filter(|_| on_cpu).unwrap_or(self.token)
    }

    /// Whether the CPU makes generated tokens faster, by what was measured.
    pub fn is_faster_on_cpu(&self) -> bool {
        let faster = |on_cpu: Expected| on_cpu.seconds() < 0.9 * self.token.seconds();
        self.on_cpu.is_some_and(|on_cpu| on_cpu.measured && self.token.measured && faster(on_cpu))
    }
}

/// Which of these ways takes a generated token the least time, by what was measured: its place
/// among them. `None` if something that counts was not measured, or if there are none.
pub fn fastest(ways: &[Expected]) -> Option<usize> {
    if ways.iter().any(|way| !way.measured) {
        return None;
    }
    let seconds = |(_, way): &(usize, &Expected)| way.seconds();
    let least = ways.iter().enumerate().min_by(|a, b| seconds(a).total_cmp(&seconds(b)));
    least.map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::tensor::DType,
        checkpoint::Synthetic,
        engine::SessionOptions,
        machine::counting::DeviceLimits,
        measure::placement::{Budget, choose},
        model::config::Config,
    };

    /// Round numbers: a byte a second of everything is one second.
    fn round() -> Rates {
        let values = [100.0, 10.0, 8.0, 2.0, 4.0, 20.0, 1000.0, 0.5, 0.25];
        let mut rates = Rates::assumed(Kind::Software);
        for (rate, value) in Rate::ALL.into_iter().zip(values) {
            rates = rates.with(rate, value).expect("above zero");
        }
        rates
    }

    #[track_caller]
    fn is(got: f64, want: f64) {
        // NaN is not near anything.
        assert!((got - want).abs() <= 1e-12 * want.abs(), "{got}, expected {want}");
    }

    const WHOLE: Traffic = Traffic {
        tokens: 1,
        device: 300,
        link: 0,
        files: 0,
        ahead: 0,
        under: 0,
        active: 300,
        cpu: 0,
        cpu_all: 0,
        stored: 0,
        operations: 0,
        segments: 1,
        dispatches: 6,
    };

    #[test]
    fn times_that_are_computed_by_hand() {
        let of = |traffic: Traffic, room| Expected::of(&traffic, &round(), room);
        let none = Room::default();
        // 300 / 100 + 1 x 0.5 + 6 x 0.25
        is(of(WHOLE, none).seconds(), 5.0);
        is(of(WHOLE, none).tokens_per_second(), 0.2);
        // 40 / 10 more.
        is(of(Traffic { link: 40, ..WHOLE }, none).seconds(), 9.0);
        // Two more segments, and 80 bytes of which the disk gives 2 a second.
        let files = Traffic { files: 80, stored: 400, segments: 3, ..WHOLE };
        is(of(files, none).seconds(), 46.0);
        is(of(files, none).files, 40.0);
        // A quarter of the file is in memory: 1 / (0.25 / 4 + 0.75 / 2) bytes a second.
        is(of(files, Room { cached: 100, kept: 0 }).files, 35.0);
        is(of(files, Room { cached: 500, kept: 0 }).files, 20.0);
        // Writing to the device is the slower part.
        let slow = round().with(Rate::Upload, 1.0).expect("above zero");
        is(Expected::of(&files, &slow, none).files, 80.0);
        // Segments of 3 s of these 5 hide 6 bytes of 20.
        let ahead = Traffic { ahead: 20, under: 180, active: 300, stored: 400, ..WHOLE };
        is(of(ahead, none).seconds(), 5.0 + 7.0);
        is(of(Traffic { under: 0, ..ahead }, none).seconds(), 5.0 + 10.0);
        // What is hidden is written nevertheless: 5 bytes of which 8 are written in a second.
        is(of(Traffic { ahead: 5, ..ahead }, none).seconds(), 5.0 + 5.0 / 8.0);
        // Reading of 26 bytes takes 13 s, of which 3 are hidden.
        is(of(Traffic { files: 6, ..ahead }, none).files, 10.0);
        // 60 / 20, and all of it from the disk, half of it, nothing.
        let cpu = Traffic { cpu: 60, cpu_all: 200, stored: 200, ..WHOLE };
        is(of(cpu, none).seconds(), 5.0 + 3.0 + 30.0);
        is(of(cpu, Room { cached: 0, kept: 100 }).seconds(), 5.0 + 3.0 + 15.0);
        is(of(cpu, Room { cached: 0, kept: 200 }).seconds(), 5.0 + 3.0);
        // A prompt is bound by operations, and has more tokens.
        let prompt = Traffic { tokens: 16, operations: 6000, ..WHOLE };
        is(of(prompt, none).seconds(), 8.0);
        is(of(prompt, none).tokens_per_second(), 2.0);
        is(of(Traffic { operations: 2000, ..prompt }, none).seconds(), 5.0);
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for value in [0.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            for rate in Rate::ALL {
                let error = Rates::assumed(Kind::Discrete).with(rate, value);
                let error = error.expect_err("no rate").to_string();
                assert!(error.contains(rate.name()), "{error}");
            }
        }
    }

    #[test]
    fn it_is_measured_if_all_that_counts_is() {
        let none = Room::default();
        let with = |rates: &[Rate]| {
            let one = |of: Rates, &rate| of.with(rate, 1.0).expect("above zero");
            rates.iter().fold(Rates::assumed(Kind::Discrete), one)
        };
        let device = [Rate::Device, Rate::Segment, Rate::Dispatch];
        let measured = |traffic: &Traffic, rates: &[Rate], room| {
            Expected::of(traffic, &with(rates), room).measured
        };
        assert!(!measured(&WHOLE, &[], none));
        assert!(!measured(&WHOLE, &device[..2], none));
        assert!(measured(&WHOLE, &device, none));
        let files = Traffic { files: 80, stored: 400, ..WHOLE };
        let bring = [&device[..], &[Rate::Upload]].concat();
        let disk = [&bring[..], &[Rate::Files]].concat();
        assert!(!measured(&files, &bring, none));
        assert!(measured(&files, &disk, none));
        assert!(!measured(&files, &disk, Room { cached: 1, kept: 0 }));
        let memory = [&bring[..], &[Rate::Cached]].concat();
        assert!(measured(&files, &memory, Room { cached: 400, kept: 0 }));
        for kind in [Kind::Discrete, Kind::Integrated, Kind::Software] {
            assert!(Rate::ALL.into_iter().all(|rate| Rates::assumed(kind).get(rate) > 0.0));
        }
    }

    #[test]
    fn what_was_measured_is_heeded() {
        let link = key(Rate::Link, DType::Q4, None);
        let files = [None, Some("/a")].map(|folder| key(Rate::Files, DType::Q4, folder));
        let [general, own] = files;
        assert!(general != own && link.ends_with("Q4"), "{own} {link}");
        let [matrix, kernels] =
            [None, Some("/a")].map(|folder| key(Rate::Device, DType::Q4, folder));
        assert_ne!(matrix, kernels);
        let kept = Kept {
            bandwidth: Some(7),
            rates: [(link, 5.0), (general, 3.0), (own, 2.0), (matrix, 20.0), (kernels, 10.0)]
                .into(),
            ..Kept::default()
        };
        let of = |dtype, folder| {
            let rates = Rates::assumed(Kind::Discrete).heeding(&kept, dtype, folder);
            let rates = rates.expect("above zero");
            [Rate::Device, Rate::Link, Rate::Files, Rate::Cpu]
                .map(|rate| if rates.is_measured(rate) { rates.get(rate) } else { -1.0 })
        };
        assert_eq!(
            of(DType::Q4, Some("/a")).map(f64::to_bits),
            [10.0, 5.0, 2.0, -1.0].map(f64::to_bits)
        );
        assert_eq!(
            of(DType::Q4, Some("/b")).map(f64::to_bits),
            [20.0, 5.0, 3.0, -1.0].map(f64::to_bits)
        );
        assert_eq!(of(DType::Q8, None).map(f64::to_bits), [7.0, -1.0, 3.0, -1.0].map(f64::to_bits));
        let wrong =
            Kept { rates: [(key(Rate::Segment, DType::Q4, None), f64::NAN)].into(), ..kept };
        assert!(Rates::assumed(Kind::Discrete).heeding(&wrong, DType::Q4, None).is_err());
    }

    #[test]
    fn the_fastest_of_what_was_measured_is_chosen() {
        let of = |traffic| Expected::of(&traffic, &round(), Room::default());
        let ways = [
            of(Traffic { link: 40, ..WHOLE }),
            of(Traffic { cpu: 40, cpu_all: 40, stored: 40, ..WHOLE }),
            of(Traffic { link: 20, ..WHOLE }),
        ];
        assert_eq!(fastest(&ways), Some(2));
        assert_eq!(fastest(&ways[..2]), Some(0));
        assert_eq!(fastest(&[]), None);
        let assumed = Rates::assumed(Kind::Discrete);
        let unknown = Expected::of(&WHOLE, &assumed, Room::default());
        assert_eq!(fastest(&[ways[0], unknown]), None);
    }

    /// The table of the released model on a card of 24 GB: what follows from the bytes and its bus.
    #[test]
    fn the_released_model_on_a_card() {
        let config = Config::preset("grok-2").expect("a preset");
        let weights = Synthetic::new(&config, DType::Q4, 0).expect("weights");
        let sizes = SessionOptions::new(8192, 1024, DType::Q8);
        let budget = Budget { device: 24_000_000_000, host: 140_000_000_000 };
        let placed = choose(&config, &weights, DeviceLimits::BASELINE, sizes, budget);
        let placed = placed.expect("fits");
        let rates = [(Rate::Device, 700e9), (Rate::Link, 25e9), (Rate::Cpu, 63e9)];
        let assumed = Rates::assumed(Kind::Discrete);
        let rates = rates
            .iter()
            .fold(assumed, |of, &(rate, value)| of.with(rate, value).expect("above zero"));
        let outlook = Outlook::of(&placed, &rates, Room::default());
        let rate = outlook.token.tokens_per_second();
        assert!((0.5..0.62).contains(&rate), "{rate}");
        assert!(outlook.on_cpu.is_none() && placed.token.segments == 1, "{placed:?}");
        let budget = Budget { host: 0, ..budget };
        let placed = choose(&config, &weights, DeviceLimits::BASELINE, sizes, budget);
        let placed = placed.expect("fits");
        let room = Room { cached: 0, kept: u64::MAX };
        let outlook = Outlook::of(&placed, &rates, room);
        let rate = outlook.on_cpu.expect("the CPU computes").tokens_per_second();
        assert!((1.2..1.5).contains(&rate), "{rate}");
        assert!(outlook.token.tokens_per_second() < 0.1, "{outlook:?}");
        // Nothing says so as long as nobody has measured the disk.
        assert!(!outlook.is_faster_on_cpu());
    }
}

//! Which weights are on the machine, and which are brought to it while it runs.

/// Which weights are on the machine all the time, and which in pinned memory of the host, where the
/// machine reads them. The others are read from the model's files when a pass needs them, into
/// memory that layers share.
///
/// Norms, routers and the head are always on the machine. What a placement changes is time, never a
/// result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// How many layers, the first ones, have the matrices of attention on the machine.
    pub attention: u32,
    /// How many have their dense MLP there.
    pub dense: u32,
    /// How many have their experts there.
    pub experts: u32,
    /// Where the experts of the others go.
    pub slots: Slots,
    /// What is in pinned memory of the host.
    pub pinned: Pinned,
}

/// How many of the layers that follow those on the machine have parts in pinned memory of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pinned {
    /// The matrices of attention.
    pub attention: u32,
    /// The dense MLP.
    pub dense: u32,
    /// The experts.
    pub experts: u32,
}

impl Pinned {
    /// Nothing.
    pub const NOTHING: Self = Self { attention: 0, dense: 0, experts: 0 };

    /// All that is not on the machine.
    pub const REST: Self = Self { attention: u32::MAX, dense: u32::MAX, experts: u32::MAX };
}

/// Room for experts that are brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slots {
    /// So many for all layers together.
    Shared(u32),
    /// So many for each layer, which may have those that it needs next already.
    Each(u32),
}

impl Slots {
    /// How many a layer can use.
    pub const fn count(self) -> u32 {
        match self {
            Self::Shared(count) | Self::Each(count) => count,
        }
    }
}

impl Placement {
    /// Everything on the machine.
    pub const WHOLE: Self = Self {
        attention: u32::MAX,
        dense: u32::MAX,
        experts: u32::MAX,
        slots: Slots::Shared(u32::MAX),
        pinned: Pinned::NOTHING,
    };

    /// As little on the machine as can be, with room for `slots` experts.
    pub const fn least(slots: Slots) -> Self {
        Self { attention: 0, dense: 0, experts: 0, slots, pinned: Pinned::NOTHING }
    }
}

impl Default for Placement {
    fn default() -> Self {
        Self::WHOLE
    }
}

//! What an adapter can do, as plain data: the planner reads this and never a device.

use std::fmt;
use std::str::FromStr;

/// The kind of device behind an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceKind {
    /// A GPU with its own memory.
    Discrete,
    /// A GPU that shares the processor's memory.
    Integrated,
    /// A software driver: no workgroup memory worth using, barriers are slow.
    Cpu,
    /// A virtual or unknown device.
    Other,
}

/// What activations may be rounded to on their way into a product. Sums and everything between
/// products are f32 in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Half precision where the adapter has it and is a GPU, else single.
    #[default]
    Auto,
    /// Single precision.
    F32,
    /// Half precision, in matrix units where there are any; single where the adapter has none.
    F16,
    /// Eight bits with a scale for each 16: fast where a GPU multiplies packed bytes, and never
    /// chosen without being asked for. Single on software drivers, which are slower with it.
    Int8,
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "auto" => Ok(Self::Auto),
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "int8" => Ok(Self::Int8),
            _ => Err("it is one of auto, f32, f16, int8".into()),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8 => "int8",
        })
    }
}

impl Precision {
    /// What it comes to on an adapter.
    pub fn resolve(self, kind: DeviceKind, f16: bool) -> Self {
        match self {
            Self::Auto if f16 && kind != DeviceKind::Cpu => Self::F16,
            Self::F16 if f16 => Self::F16,
            Self::Int8 if kind != DeviceKind::Cpu => Self::Int8,
            _ => Self::F32,
        }
    }
}

/// Abilities and limits of an adapter as the planner needs them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caps {
    /// Kind of device.
    pub kind: DeviceKind,
    /// `shader-f16`: native half-precision arithmetic and storage.
    pub f16: bool,
    /// 64-bit integers in shaders.
    pub int64: bool,
    /// Smallest and largest subgroup size, where subgroup operations can be used.
    pub subgroups: Option<(u32, u32)>,
    /// Side of square cooperative matrices with f16 factors and f32 sums, where there are any.
    pub coop_matrix: Option<u32>,
    /// What activations may be rounded to; never [`Precision::Auto`].
    pub precision: Precision,
    /// Largest storage buffer binding, bytes.
    pub max_binding: u64,
    /// Largest buffer, bytes.
    pub max_buffer: u64,
    /// Storage buffers one kernel may bind.
    pub max_storage_buffers: u32,
    /// Workgroup memory of one workgroup, bytes.
    pub workgroup_memory: u32,
    /// Invocations of one workgroup.
    pub max_invocations: u32,
    /// Workgroups in one dimension of a dispatch.
    pub max_groups: u32,
    /// Alignment of a storage or uniform binding's offset, bytes.
    pub offset_align: u32,
}

impl Caps {
    /// Whether half precision may be used, and is there.
    pub fn uses_f16(&self) -> bool {
        self.f16 && self.precision == Precision::F16
    }

    /// Side and lanes of the matrix units, where they may be used: subgroups have one size only, and
    /// `64 / side` of them fit a workgroup.
    pub fn matrix_units(&self) -> Option<(u32, u32)> {
        let (side, (least, most)) = (self.coop_matrix?, self.subgroups?);
        let fits = least == most && least * 64 / side <= self.max_invocations;
        (self.uses_f16() && fits).then_some((side, least))
    }

    /// Lanes of a software driver's vector registers, where they are invocations that can pass each
    /// other values: kernels of their own pay there.
    pub fn software_lanes(&self) -> Option<u32> {
        match (self.kind, self.subgroups) {
            (DeviceKind::Cpu, Some((least, most))) if least == most => (least == 4
                || (8..=64).contains(&least) && least.is_multiple_of(8))
            .then_some(least),
            _ => None,
        }
    }

    /// WebGPU's default limits and no optional feature: the least that any kernel may count on.
    pub fn webgpu_default() -> Self {
        Self {
            kind: DeviceKind::Other,
            f16: false,
            int64: false,
            subgroups: None,
            coop_matrix: None,
            precision: Precision::F32,
            max_binding: 128 << 20,
            max_buffer: 256 << 20,
            max_storage_buffers: 8,
            workgroup_memory: 16 << 10,
            max_invocations: 256,
            max_groups: 65_535,
            offset_align: 256,
        }
    }
}

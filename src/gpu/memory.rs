//! How much memory there is for a device's buffers. wgpu does not say: Vulkan's drivers do, and a
//! software driver has what the system has left.

use crate::caps::DeviceKind;

/// Bytes of Vulkan's heaps, and whether each is the device's own memory.
type Heaps = Vec<(u64, bool)>;

/// Bytes there are for the buffers of an adapter, where anybody says.
pub(super) fn of_adapter(adapter: &wgpu::Adapter, kind: DeviceKind) -> Option<u64> {
    available(kind, &adapter_heaps(adapter))
}

/// The same of an open device.
pub(super) fn of_device(device: &wgpu::Device, kind: DeviceKind) -> Option<u64> {
    available(kind, &device_heaps(device))
}

/// What the heaps come to: a card's largest of its own, since a buffer elsewhere is read over the bus;
/// all of them where the memory is the processor's anyhow, of which a small part may be set apart.
fn available(kind: DeviceKind, heaps: &[(u64, bool)]) -> Option<u64> {
    let own = heaps
        .iter()
        .filter(|(_, own)| *own)
        .map(|(bytes, _)| *bytes);
    let all = heaps.iter().map(|(bytes, _)| *bytes);
    match kind {
        DeviceKind::Discrete => own.max(),
        DeviceKind::Integrated | DeviceKind::Other => Some(all.sum()).filter(|sum| *sum > 0),
        DeviceKind::Cpu => system().or(all.max()),
    }
}

/// Bytes that this system can still give a process, by Linux's account; no more than its control
/// group leaves, as in a container.
fn system() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    let group = |file: &str| {
        let text = std::fs::read_to_string(format!("/sys/fs/cgroup/memory.{file}")).ok()?;
        text.trim().parse::<u64>().ok()
    };
    let left = group("max").map(|max| max.saturating_sub(group("current").unwrap_or(0)));
    Some((kib << 10).min(left.unwrap_or(u64::MAX)))
}

/// The heaps of a physical device.
#[cfg(not(any(target_arch = "wasm32", target_vendor = "apple")))]
macro_rules! heaps {
    ($hal:expr) => {{
        let instance = $hal.shared_instance().raw_instance();
        // SAFETY: the instance made this physical device, and both live as long as `$hal`.
        let memory =
            unsafe { instance.get_physical_device_memory_properties($hal.raw_physical_device()) };
        let heaps = memory
            .memory_heaps
            .iter()
            .take(memory.memory_heap_count as usize);
        // VK_MEMORY_HEAP_DEVICE_LOCAL_BIT is 1.
        heaps.map(|h| (h.size, h.flags.as_raw() & 1 != 0)).collect()
    }};
}

#[cfg(not(any(target_arch = "wasm32", target_vendor = "apple")))]
#[expect(unsafe_code, reason = "only the driver knows how much memory there is")]
fn adapter_heaps(adapter: &wgpu::Adapter) -> Heaps {
    // SAFETY: it is read from, and not destroyed.
    let hal = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() };
    hal.map_or_else(Vec::new, |hal| heaps!(hal))
}

#[cfg(not(any(target_arch = "wasm32", target_vendor = "apple")))]
#[expect(unsafe_code, reason = "only the driver knows how much memory there is")]
fn device_heaps(device: &wgpu::Device) -> Heaps {
    // SAFETY: it is read from, and not destroyed.
    let hal = unsafe { device.as_hal::<wgpu::hal::api::Vulkan>() };
    hal.map_or_else(Vec::new, |hal| heaps!(hal))
}

#[cfg(any(target_arch = "wasm32", target_vendor = "apple"))]
fn adapter_heaps(_: &wgpu::Adapter) -> Heaps {
    Vec::new()
}

#[cfg(any(target_arch = "wasm32", target_vendor = "apple"))]
fn device_heaps(_: &wgpu::Device) -> Heaps {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_has_its_own_memory_and_others_the_systems() {
        // A card with a window for the processor; a processor's graphics with some memory set apart.
        let card = [(8 << 30, true), (16 << 30, false), (256 << 20, true)];
        assert_eq!(available(DeviceKind::Discrete, &card), Some(8 << 30));
        let shared = [(256 << 20, true), (16 << 30, false)];
        let sum = (256 << 20) + (16 << 30);
        assert_eq!(available(DeviceKind::Integrated, &shared), Some(sum));
        for kind in [
            DeviceKind::Discrete,
            DeviceKind::Integrated,
            DeviceKind::Other,
        ] {
            assert_eq!(available(kind, &[]), None);
        }
        if cfg!(target_os = "linux") {
            let left = available(DeviceKind::Cpu, &[]);
            assert!(left.is_some_and(|bytes| bytes > 64 << 20), "{left:?}");
        }
    }
}

//! Which activations share a buffer.

use crate::kernel::{Dispatch, Resource};

/// Shares buffers between values that do not live at the same time: bytes of each buffer, and each
/// value's buffer. A launch never writes a buffer that it reads otherwise, as WebGPU demands.
pub(super) fn assign(
    values: &[usize],
    dispatches: &[Dispatch],
    output: Resource,
) -> (Vec<usize>, Vec<usize>) {
    let mut last = vec![0; values.len()];
    for (i, d) in dispatches.iter().enumerate() {
        for (r, _) in &d.bindings {
            if let Resource::Slot(s) = r {
                last[*s] = i;
            }
        }
    }
    if let Resource::Slot(s) = output {
        last[s] = dispatches.len();
    }
    let mut physical = vec![usize::MAX; values.len()];
    let mut buffers: Vec<usize> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    for (i, d) in dispatches.iter().enumerate() {
        for (r, _) in &d.bindings {
            let Resource::Slot(s) = *r else { continue };
            if physical[s] != usize::MAX {
                continue;
            }
            // The free buffer whose size fits best, grown if none is large enough.
            let fit = |b: &usize| values[s].abs_diff(buffers[*b]);
            let best = (0..free.len()).min_by_key(|f| fit(&free[*f]));
            physical[s] = if let Some(f) = best {
                free.swap_remove(f)
            } else {
                buffers.push(0);
                buffers.len() - 1
            };
            let bytes = &mut buffers[physical[s]];
            *bytes = (*bytes).max(values[s]);
        }
        for s in 0..values.len() {
            if last[s] == i && physical[s] != usize::MAX && !free.contains(&physical[s]) {
                free.push(physical[s]);
            }
        }
    }
    (buffers, physical)
}

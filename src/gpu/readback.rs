//! Bytes from the device, without stopping it.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

use super::Gpu;
use crate::error::{Error, Result};

#[derive(Debug, Default)]
struct Arrival {
    result: Option<Result<(), wgpu::BufferAsyncError>>,
    waker: Option<Waker>,
}

/// A copy of some of a buffer's bytes, on its way.
#[derive(Debug)]
pub struct Readback {
    staging: wgpu::Buffer,
    arrival: Arc<Mutex<Arrival>>,
}

impl Readback {
    /// A staging buffer to copy to.
    pub fn staging(gpu: &Gpu, bytes: u64) -> wgpu::Buffer {
        gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("omnimini.readback"),
            size: bytes,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        })
    }

    /// Asks for a staging buffer's bytes, after what was submitted so far.
    pub fn start(staging: wgpu::Buffer) -> Self {
        let arrival = Arc::new(Mutex::new(Arrival::default()));
        let seen = Arc::clone(&arrival);
        staging.map_async(wgpu::MapMode::Read, .., move |result| {
            let mut arrival = seen.lock().unwrap_or_else(PoisonError::into_inner);
            arrival.result = Some(result);
            if let Some(waker) = arrival.waker.take() {
                waker.wake();
            }
        });
        Self { staging, arrival }
    }

    /// The words, and the staging buffer to use again. Natively this blocks until they are there.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] or [`Error::Device`] where the device failed meanwhile.
    pub async fn finish(self, gpu: &Gpu) -> Result<(Vec<u32>, wgpu::Buffer)> {
        #[cfg(not(target_arch = "wasm32"))]
        gpu.device
            .poll(wgpu::PollType::wait_indefinitely())
            .map_err(|e| Error::Device {
                reason: e.to_string(),
            })?;
        let result = poll_fn(|cx| {
            let mut arrival = self.arrival.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(result) = arrival.result.take() {
                return Poll::Ready(result);
            }
            arrival.waker = Some(cx.waker().clone());
            Poll::Pending
        });
        let result = result.await;
        gpu.check()?;
        let failed = |reason: String| Error::DeviceLost { reason };
        result.map_err(|e| failed(e.to_string()))?;
        let range = self.staging.get_mapped_range(..);
        let words = bytemuck::pod_collect_to_vec(&range.map_err(|e| failed(e.to_string()))?[..]);
        self.staging.unmap();
        Ok((words, self.staging))
    }
}

/// Reads a buffer's first `bytes` as words, at once: for tests and set-up, not for the loop.
pub async fn read(gpu: &Gpu, buffer: &wgpu::Buffer, bytes: u64) -> Result<Vec<u32>> {
    let staging = Readback::staging(gpu, bytes);
    let mut encoder = gpu
        .device
        .create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, bytes);
    gpu.queue.submit([encoder.finish()]);
    Ok(Readback::start(staging).finish(gpu).await?.0)
}

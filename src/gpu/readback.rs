//! Bytes from the device, without stopping it.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

use super::{Gpu, Ticket};
use crate::error::{Error, Result};

#[derive(Debug, Default)]
struct Arrival {
    result: Option<Result<(), wgpu::BufferAsyncError>>,
    waker: Option<Waker>,
}

/// A place for copies of a buffer's bytes on their way here; it can be used again and again.
#[derive(Debug)]
pub struct Readback {
    staging: wgpu::Buffer,
    arrival: Arc<Mutex<Arrival>>,
    ticket: Option<Ticket>,
}

impl Readback {
    /// A place for `bytes`, a multiple of 4.
    pub fn new(gpu: &Gpu, bytes: u64) -> Self {
        Self {
            staging: gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("omnimini.readback"),
                size: bytes,
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            }),
            arrival: Arc::default(),
            ticket: None,
        }
    }

    /// Where the bytes are to be copied to, before they are asked for.
    pub fn staging(&self) -> &wgpu::Buffer {
        &self.staging
    }

    /// Asks for the bytes, which the submission of `ticket` copies.
    pub fn start(&mut self, ticket: Ticket) {
        let arrival = Arc::clone(&self.arrival);
        self.ticket = Some(ticket);
        self.staging
            .map_async(wgpu::MapMode::Read, .., move |result| {
                let mut arrival = arrival.lock().unwrap_or_else(PoisonError::into_inner);
                arrival.result = Some(result);
                if let Some(waker) = arrival.waker.take() {
                    waker.wake();
                }
            });
    }

    /// Puts the words in `words`. Natively this blocks until they are there.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] or [`Error::Device`] where the device failed meanwhile.
    pub async fn finish(&mut self, gpu: &Gpu, words: &mut Vec<u32>) -> Result<()> {
        words.clear();
        gpu.wait(self.ticket.take().as_ref())?;
        let result = poll_fn(|cx| {
            let mut arrival = self.arrival.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(result) = arrival.result.take() {
                return Poll::Ready(Some(result));
            }
            // Whoever has waited has the answer, or there will be none.
            if cfg!(not(target_arch = "wasm32")) {
                return Poll::Ready(None);
            }
            arrival.waker = Some(cx.waker().clone());
            Poll::Pending
        });
        let result = result.await;
        gpu.check()?;
        let failed = |reason: String| Error::DeviceLost { reason };
        result
            .ok_or_else(|| failed("it does not answer".into()))?
            .map_err(|e| failed(e.to_string()))?;
        {
            let range = self.staging.get_mapped_range(..);
            let range = range.map_err(|e| failed(e.to_string()))?;
            let bytes = range.chunks_exact(4);
            words.extend(bytes.map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]])));
        }
        self.staging.unmap();
        Ok(())
    }
}

/// Reads a buffer's first `bytes` as words, at once: for tests and set-up, not for the loop.
pub async fn read(gpu: &Gpu, buffer: &wgpu::Buffer, bytes: u64) -> Result<Vec<u32>> {
    let mut encoder = gpu.encoder();
    let mut readback = Readback::new(gpu, bytes);
    encoder.copy_buffer_to_buffer(buffer, 0, readback.staging(), 0, bytes);
    readback.start(gpu.submit(encoder));
    let mut words = Vec::new();
    readback.finish(gpu, &mut words).await?;
    Ok(words)
}

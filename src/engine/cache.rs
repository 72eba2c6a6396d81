//! The paged cache: which pages there are, who has them, and the buffers they lie in.
//!
//! A page is a number that stands for one page in every layer of its pool: layers that keep
//! everything are one pool, layers of one window another, in which a sequence has a ring of pages.
//! Buffers begin small and double as pages are wanted, each by a copy on the device, so that a long
//! context costs memory only once it is used.

use super::LoadOptions;
use crate::caps::Caps;
use crate::error::{Error, Result};
use crate::gpu::{Buffers, Gpu};
use crate::graph::Attention;
use crate::kernel::Resource;
use crate::kernel::kv::{BLOCK, KvShape, KvType, PAGE};

/// Pages that a pool begins with: 512 positions.
const FIRST: usize = 16;

/// The keys and values of one layer.
#[derive(Debug)]
pub(super) struct Layer {
    resource: Resource,
    pub(super) page_bytes: u64,
    /// Elements of a page.
    pub(super) page_elements: usize,
    pub(super) buffer: wgpu::Buffer,
}

/// Layers that keep the same positions.
#[derive(Debug)]
pub(super) struct Pool {
    /// Pages of a sequence's ring, 0 where it keeps everything: which page table its kernels read.
    pub(super) ring: usize,
    /// Entries of the page table that a sequence has.
    pub(super) entries: usize,
    /// Positions that its layers see back.
    pub(super) window: Option<u32>,
    /// Pages there may be, and are.
    most: usize,
    pages: usize,
    free: Vec<u32>,
    pub(super) layers: Vec<Layer>,
}

impl Pool {
    fn page_bytes(&self) -> u64 {
        self.layers.iter().map(|l| l.page_bytes).sum()
    }
}

/// The cache of all layers.
#[derive(Debug)]
pub(super) struct Cache {
    pub(super) pools: Vec<Pool>,
    pub(super) dtype: KvType,
    /// Bytes it may take at most.
    limit: Option<u64>,
    /// How often buffers were replaced.
    pub(super) version: u64,
}

impl Cache {
    /// The cache of a graph's layers, with room for its first pages.
    ///
    /// # Errors
    /// [`Error::CacheTooLarge`] where a layer could not keep the context in one binding.
    pub(super) fn new<'a>(
        gpu: &Gpu,
        attentions: impl Iterator<Item = &'a Attention>,
        kv: KvShape,
        options: &LoadOptions,
    ) -> Result<Self> {
        let mut cache = Self {
            pools: Vec::new(),
            dtype: kv.dtype,
            limit: options.cache,
            version: 0,
        };
        for a in attentions {
            let most = most(&gpu.caps, a, kv, options)?;
            let ring = kv.ring(a.window).unwrap_or(0);
            let entries = kv.entries(a.window);
            let page_bytes = kv.page_bytes(a.kv_heads, a.head_dim) as u64;
            let known = cache.pools.iter().position(|p| p.ring == ring);
            let pool = known.unwrap_or_else(|| {
                cache.pools.push(Pool {
                    ring,
                    entries,
                    window: a.window.filter(|_| ring > 0),
                    most,
                    pages: FIRST.min(most),
                    free: (0..FIRST.min(most) as u32).rev().collect(),
                    layers: Vec::new(),
                });
                cache.pools.len() - 1
            });
            let pool = &mut cache.pools[pool];
            pool.most = pool.most.min(most);
            let resource = Resource::Kv(a.layer);
            if pool.layers.iter().all(|l| l.resource != resource) {
                let bytes = pool.pages as u64 * page_bytes;
                pool.layers.push(Layer {
                    resource,
                    page_bytes,
                    page_elements: 2 * PAGE * a.kv_heads * a.head_dim,
                    buffer: gpu.buffer(&resource.to_string(), bytes),
                });
            }
        }
        Ok(cache)
    }

    /// The buffers of its layers.
    pub(super) fn buffers(&self) -> Buffers {
        let layers = self.pools.iter().flat_map(|p| &p.layers);
        layers.map(|l| (l.resource, l.buffer.clone())).collect()
    }

    /// Bytes it takes now.
    pub(super) fn bytes(&self) -> u64 {
        let pool = |p: &Pool| p.pages as u64 * p.page_bytes();
        self.pools.iter().map(pool).sum()
    }

    /// Positions there is room for now, in the layers that keep most.
    fn positions(&self) -> usize {
        self.pools.iter().map(|p| p.pages).max().unwrap_or(0) * PAGE
    }

    /// Puts free pages of a pool into `mine` until there are `count`; makes more where they do not
    /// suffice.
    ///
    /// # Errors
    /// [`Error::CacheFull`] where others have them all, [`Error::CacheMemory`] where the device has no
    /// memory for more.
    pub(super) fn take(
        &mut self,
        gpu: &Gpu,
        pool: usize,
        count: usize,
        mine: &mut Vec<u32>,
    ) -> Result<()> {
        let p = &self.pools[pool];
        let missing = count.saturating_sub(mine.len() + p.free.len());
        if missing > 0 {
            let (wanted, most) = (p.pages + missing, p.most);
            if wanted > most {
                return Err(Error::CacheFull {
                    tokens: most * PAGE,
                });
            }
            let mut double = 2 * p.pages;
            while double < wanted {
                double *= 2;
            }
            let double = double.min(most);
            match self.grow(gpu, pool, double) {
                Err(Error::CacheMemory { .. }) if double > wanted => {
                    self.grow(gpu, pool, wanted)?;
                }
                grown => grown?,
            }
        }
        let free = &mut self.pools[pool].free;
        while mine.len() < count {
            mine.extend(free.pop());
        }
        Ok(())
    }

    /// Takes pages of a pool back.
    pub(super) fn give(&mut self, pool: usize, pages: &mut Vec<u32>) {
        self.pools[pool].free.append(pages);
    }

    /// Makes room for `pages` pages of a pool. What was submitted before still runs on the old buffers,
    /// and is copied with them.
    fn grow(&mut self, gpu: &Gpu, pool: usize, pages: usize) -> Result<()> {
        let tokens = self.positions();
        let more = (pages - self.pools[pool].pages) as u64 * self.pools[pool].page_bytes();
        if self.limit.is_some_and(|limit| self.bytes() + more > limit) {
            return Err(Error::CacheMemory { tokens });
        }
        let p = &mut self.pools[pool];
        for layer in &mut p.layers {
            let bytes = pages as u64 * layer.page_bytes;
            let had = layer.buffer.size();
            // One that grew before another could not.
            if had >= bytes {
                continue;
            }
            let buffer = gpu.buffer(&layer.resource.to_string(), bytes);
            gpu.check().map_err(|e| match e {
                Error::DeviceMemory => Error::CacheMemory { tokens },
                e => e,
            })?;
            let mut encoder = gpu.encoder();
            encoder.copy_buffer_to_buffer(&layer.buffer, 0, &buffer, 0, had);
            // Two copies of one layer at a time are enough.
            gpu.wait(Some(&gpu.submit(encoder)))?;
            layer.buffer = buffer;
            self.version += 1;
        }
        p.free.extend((p.pages as u32..pages as u32).rev());
        p.pages = pages;
        log::debug!("the cache has room for {pages} pages of pool {pool}");
        Ok(())
    }
}

/// Pages that a layer may have at most.
///
/// # Errors
/// [`Error::CacheTooLarge`] where it could not keep the context in one binding, [`Error::CacheBlocks`]
/// where its heads are no whole blocks.
pub(super) fn most(
    caps: &Caps,
    a: &Attention,
    kv: KvShape,
    options: &LoadOptions,
) -> Result<usize> {
    if kv.dtype.has_blocks() && !a.head_dim.is_multiple_of(BLOCK) {
        return Err(Error::CacheBlocks {
            kv: kv.dtype.to_string(),
            block: BLOCK,
            head_dim: a.head_dim,
        });
    }
    let binding = caps.max_binding.min(caps.max_buffer);
    let fit = (binding / kv.page_bytes(a.kv_heads, a.head_dim) as u64) as usize;
    let entries = kv.entries(a.window);
    let most = if kv.ring(a.window).is_some() {
        // Fewer sequences than may be open are enough, where more do not fit.
        (entries * options.sequences).min(fit)
    } else {
        entries * options.contexts.max(1)
    };
    if most < entries || most > fit {
        return Err(too_large(kv, options, [a.kv_heads, a.head_dim], binding));
    }
    Ok(most)
}

/// The contexts that would fit one binding a layer, in this type of element and in smaller ones.
fn too_large(
    kv: KvShape,
    options: &LoadOptions,
    [kv_heads, head_dim]: [usize; 2],
    binding: u64,
) -> Error {
    let contexts = options.contexts.max(1);
    let page = |kv: KvShape| kv.page_bytes(kv_heads, head_dim);
    let fits = |kv: KvShape| (binding as usize / page(kv) / contexts) * PAGE;
    Error::CacheTooLarge {
        context: kv.stride * PAGE * contexts,
        kv: kv.dtype.to_string(),
        bytes: (kv.stride * contexts * page(kv)) as u64,
        limit: binding,
        fits: fits(kv),
        others: KvType::ALL
            .into_iter()
            .skip_while(|t| *t != kv.dtype)
            .skip(1)
            .filter(|t| !t.has_blocks() || head_dim.is_multiple_of(BLOCK))
            .map(|dtype| (dtype.to_string(), fits(KvShape { dtype, ..kv })))
            .collect(),
    }
}

//! Finished pages of the KV cache go to the host, and come back after a device was lost or the
//! pages were given to another text.

use super::{
    Engine,
    sequence::{Kind, Sequence},
    step::{Input, Readback},
    store::Store,
};
use crate::{
    base::error::Result,
    machine::{Machine, Span, step::PAGE},
};

/// Bytes that are read or written at once, or a page if that is more: they are in staging memory.
const AT_ONCE: u64 = 16 << 20;

impl<M: Machine> Engine<M> {
    /// Bytes of a page: keys and values of all layers, of 32 positions.
    pub fn page_bytes(&self) -> u64 {
        self.page(0).iter().map(|span| span.bytes).sum()
    }

    /// Bytes of all pages of the cache.
    pub fn cache_bytes(&self) -> u64 {
        self.page_bytes() * self.pool.count() as u64
    }

    /// Copies those finished pages of `sequence` to `store` that it lacks and has room for. Returns
    /// how many. Without any, the machine is not asked. Otherwise it is waited for.
    ///
    /// # Errors
    ///
    /// Errors of the machine. What was copied before is kept.
    pub async fn keep(&mut self, sequence: &Sequence, store: &mut Store) -> Result<usize> {
        if !sequence.is_on(&self.pool) {
            return Ok(0);
        }
        let finished = sequence.tokens().len() / PAGE as usize;
        let had = store.count(sequence);
        let missing: Vec<u32> = sequence.pages().iter().copied().take(finished).skip(had).collect();
        let bytes = self.page_bytes();
        let mut kept = 0;
        for pages in missing.chunks(count(AT_ONCE / bytes.max(1)).max(1)) {
            let spans: Vec<Span> = pages.iter().flat_map(|&page| self.page(page)).collect();
            let read = self.machine.read(&spans).await?;
            for page in read.chunks_exact(count(bytes).max(1)) {
                if !store.push(sequence, page.to_vec()) {
                    return Ok(kept);
                }
                kept += 1;
            }
        }
        Ok(kept)
    }

    /// Brings a sequence into the cache after its engine was lost or its pages were taken: writes
    /// the pages that `store` has, and replays the tokens after them, the way they went through the
    /// model before. Returns how many were replayed. If that fails, the sequence keeps its tokens,
    /// but has no pages.
    ///
    /// # Errors
    ///
    /// Those of [`Engine::step`].
    pub async fn restore_from(
        &mut self,
        sequence: &mut Sequence,
        store: &mut Store,
    ) -> Result<usize> {
        sequence.release();
        let mut again = Sequence::new();
        again.take(&self.pool, store.count(sequence) * PAGE as usize)?;
        let there = self.put_back(again.pages(), sequence, store, 0).await?;
        let (mut left, mut replayed) = (there, 0);
        for (kind, ids) in sequence.runs() {
            let (known, mut rest) = ids.split_at(left.min(ids.len()));
            left -= known.len();
            again.extend(known, kind);
            while let Some(first) = rest.first() {
                let input = match kind {
                    Kind::Prompt => Input::next_chunk(rest, Readback::Nothing, self.options()),
                    Kind::Generated => Input::generated(first, Readback::Nothing),
                };
                rest = &rest[input.ids.len()..];
                replayed += input.ids.len();
                self.run(&mut again, input).await?;
            }
        }
        *sequence = again;
        Ok(replayed)
    }

    /// Writes those pages of a text that `store` has, without the first ones, to these pages of the
    /// cache, as many as there are. Returns their positions.
    pub(super) async fn put_back(
        &mut self,
        to: &[u32],
        text: &Sequence,
        store: &mut Store,
        first: usize,
    ) -> Result<usize> {
        let (mut pages, mut unflushed) = (0, 0);
        for (bytes, &page) in store.pages(text).skip(first).zip(to) {
            let mut rest = bytes;
            for Span { tensor, offset, bytes } in self.page(page) {
                let (of_span, others) = rest.split_at(count(bytes));
                self.machine.write(tensor, offset, of_span)?;
                rest = others;
            }
            pages += 1;
            unflushed += bytes.len() as u64;
            if unflushed >= AT_ONCE {
                self.machine.flush().await?;
                unflushed = 0;
            }
        }
        Ok(pages * PAGE as usize)
    }

    /// Where a page of the cache is: keys and values of each layer, in turn.
    fn page(&self, page: u32) -> Vec<Span> {
        let slot = page * PAGE;
        let mut spans = Vec::new();
        for cache in &self.caches {
            // The last shard that begins there or before.
            let Some(shard) = cache.shards.iter().rfind(|shard| shard.slot0 <= slot) else {
                continue;
            };
            for tensor in [shard.k, shard.v] {
                let row = tensor.size_bytes() / u64::from(shard.len);
                let offset = u64::from(slot - shard.slot0) * row;
                spans.push(Span { tensor, offset, bytes: u64::from(PAGE) * row });
            }
        }
        spans
    }
}

/// So many bytes in memory: they were read, or will be.
fn count(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

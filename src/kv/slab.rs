//! Things by number, in chunks: growing never moves those that are there, and a chunk that holds
//! nothing any more can be given back.

/// Things are allocated so many at a time.
const CHUNK: usize = 1024;

/// What stands at each number. A number that is free is used again.
#[derive(Debug)]
pub(super) struct Slab<T> {
    /// Each of `CHUNK` places, or of none if it was given back. The last may be growing.
    chunks: Vec<Vec<Option<T>>>,
    /// Numbers to be used again; those of chunks that were given back come first, to be used last.
    free: Vec<u32>,
    /// Of the free numbers, those whose chunk was given back.
    without_place: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), free: Vec::new(), without_place: 0 }
    }
}

impl<T> Slab<T> {
    /// What stands at `number`.
    pub(super) fn get(&self, number: u32) -> Option<&T> {
        let number = number as usize;
        self.chunks.get(number / CHUNK)?.get(number % CHUNK)?.as_ref()
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        let number = number as usize;
        self.chunks.get_mut(number / CHUNK)?.get_mut(number % CHUNK)?.as_mut()
    }

    /// Adds one below `limit`; its number.
    pub(super) fn insert(&mut self, thing: T, limit: usize) -> u32 {
        if let Some(number) = self.free.pop() {
            let chunk = &mut self.chunks[number as usize / CHUNK];
            if chunk.is_empty() {
                chunk.resize_with(CHUNK, || None);
                let again = |free: &&u32| **free as usize / CHUNK == number as usize / CHUNK;
                self.without_place -= 1 + self.free.iter().filter(again).count();
            }
            chunk[number as usize % CHUNK] = Some(thing);
            return number;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let place = (self.chunks.len() - 1) * CHUNK;
        let chunk = self.chunks.last_mut().expect("just made");
        let number = place + chunk.len();
        assert!(number < limit, "more keys than any memory holds");
        chunk.push(Some(thing));
        number as u32
    }

    /// Takes what stands at `number`.
    pub(super) fn remove(&mut self, number: u32) -> Option<T> {
        let place = number as usize;
        let thing = self.chunks.get_mut(place / CHUNK)?.get_mut(place % CHUNK)?.take();
        if thing.is_some() {
            self.free.push(number);
        }
        thing
    }

    /// Every number given out so far is below this.
    pub(super) fn end(&self) -> u32 {
        let full = self.chunks.len().saturating_sub(1) * CHUNK;
        (full + self.chunks.last().map_or(0, Vec::len)) as u32
    }

    /// Memory of places where nothing stands.
    pub(super) fn unused_bytes(&self) -> u64 {
        ((self.free.len() - self.without_place) * size_of::<Option<T>>()) as u64
    }

    /// Gives back the chunks that hold nothing, but for the last. Takes time in proportion to the
    /// free numbers.
    pub(super) fn give_back(&mut self) {
        let growing = self.chunks.len().saturating_sub(1);
        for chunk in self.chunks.iter_mut().take(growing) {
            if !chunk.is_empty() && chunk.iter().all(Option::is_none) {
                *chunk = Vec::new();
            }
        }
        let has_place = |number: &u32| !self.chunks[*number as usize / CHUNK].is_empty();
        // By number, so that a chunk that has to come back is used up before the next one.
        self.free.sort_unstable_by_key(|number| (has_place(number), *number));
        self.without_place = self.free.partition_point(|number| !has_place(number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(count: u32) -> Slab<u32> {
        let mut slab = Slab::default();
        for number in 0..count {
            assert_eq!(slab.insert(number, usize::MAX), number);
        }
        slab
    }

    #[test]
    fn a_free_number_is_used_again() {
        let mut slab = filled(3000);
        assert_eq!((slab.remove(7), slab.remove(7), slab.get(7)), (Some(7), None, None));
        assert_eq!(slab.unused_bytes(), size_of::<Option<u32>>() as u64);
        assert_eq!(slab.insert(70, usize::MAX), 7);
        assert_eq!((slab.get(7), slab.unused_bytes(), slab.end()), (Some(&70), 0, 3000));
    }

    #[test]
    fn chunks_that_hold_nothing_are_given_back_and_come_back_when_they_are_needed() {
        let mut slab = filled(4 * CHUNK as u32);
        for number in (0..4 * CHUNK as u32).filter(|number| *number != 1030) {
            slab.remove(number);
        }
        slab.give_back();
        let place = size_of::<Option<u32>>();
        // The chunk that holds one, and the last.
        assert_eq!(slab.unused_bytes(), ((2 * CHUNK - 1) * place) as u64);
        assert_eq!((slab.remove(5), slab.get(0), slab.get(1030)), (None, None, Some(&1030)));
        for count in 0..2 * CHUNK - 1 {
            slab.insert(count as u32, usize::MAX);
        }
        assert_eq!(slab.unused_bytes(), 0, "places that are there are used first");
        slab.insert(0, usize::MAX);
        assert_eq!(slab.unused_bytes(), ((CHUNK - 1) * place) as u64);
        for _ in 0..2 * CHUNK - 1 {
            slab.insert(0, usize::MAX);
        }
        assert_eq!((slab.unused_bytes(), slab.end()), (0, 4 * CHUNK as u32));
        assert_eq!(slab.insert(0, usize::MAX), 4 * CHUNK as u32);
    }
}

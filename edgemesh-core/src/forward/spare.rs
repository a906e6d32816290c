//! Buffers that wait for their next use, a few a thread: a connection that speaks takes one, and one
//! that has nothing to say has none. The allocator would take locks for what is as large as these.

use std::cell::RefCell;

/// Kept for a thread at most.
const KEPT: usize = 4;
/// Larger ones go back to the allocator: who fills them moves so much that asking costs nothing.
const LARGEST: usize = 16 * 1024;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Gives `buffer` room for `more` bytes.
pub(super) fn reserve(buffer: &mut Vec<u8>, more: usize) {
    if buffer.capacity() == 0
        && more <= LARGEST
        && let Some(spare) = SPARE.with_borrow_mut(Vec::pop)
    {
        *buffer = spare;
    }
    buffer.reserve(more);
}

/// Takes what `buffer` has allocated, and what is in it.
pub(super) fn give_back(buffer: &mut Vec<u8>) {
    let mut buffer = std::mem::take(buffer);
    if buffer.capacity() == 0 || buffer.capacity() > LARGEST {
        return;
    }
    buffer.clear();
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < KEPT {
            spare.push(buffer);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_are_kept_and_no_large_ones() {
        let mut all: Vec<Vec<u8>> = (0..KEPT + 2).map(|_| Vec::new()).collect();
        for buffer in &mut all {
            reserve(buffer, 200);
            buffer.extend_from_slice(b"said before");
        }
        let first = all[0].as_ptr();
        all.iter_mut().for_each(give_back);
        assert!(all.iter().all(|buffer| buffer.capacity() == 0));
        let mut large = Vec::with_capacity(LARGEST + 1);
        give_back(&mut large);
        assert_eq!(SPARE.with_borrow(Vec::len), KEPT);
        let mut again: Vec<Vec<u8>> = (0..KEPT + 1).map(|_| Vec::new()).collect();
        again.iter_mut().for_each(|buffer| reserve(buffer, 200));
        assert!(again.iter().all(|buffer| buffer.is_empty() && buffer.capacity() >= 200));
        assert!(again.iter().any(|buffer| buffer.as_ptr() == first));
        assert_eq!(SPARE.with_borrow(Vec::len), 0);
    }
}

//! Memory with unreadable pages on both sides, and code to be called in it.
#![allow(dead_code)]

use std::ptr;

const PAGE: usize = 4096;

/// Which end of its memory data touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Start,
    End,
}

pub const SIDES: [Side; 2] = [Side::Start, Side::End];

/// Values that begin right after, or end right before, memory that may not be touched.
pub struct Guarded {
    map: *mut u8,
    pages: usize,
    first: *mut u8,
    bytes: usize,
}

impl Guarded {
    pub fn new(values: &[f32], side: Side) -> Guarded {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Guarded::from_bytes(&bytes, side)
    }

    pub fn from_bytes(data: &[u8], side: Side) -> Guarded {
        let bytes = data.len();
        let pages = bytes.div_ceil(PAGE);
        let map = map(pages + 2, libc::PROT_NONE);
        // SAFETY: the pages between the first and the last belong to the map just made.
        let inner = unsafe { map.add(PAGE) };
        protect(inner, pages, libc::PROT_READ | libc::PROT_WRITE);
        let start = if side == Side::Start { 0 } else { pages * PAGE - bytes };
        // SAFETY: `bytes` bytes from `start` on lie within the readable pages.
        let first = unsafe { inner.add(start) };
        // SAFETY: as above; the source is a slice elsewhere.
        unsafe { ptr::copy_nonoverlapping(data.as_ptr(), first, bytes) };
        Guarded { map, pages, first, bytes }
    }

    pub fn pointer(&self) -> *mut f32 {
        self.first.cast()
    }

    pub fn read(&self) -> Vec<f32> {
        let four = |b: &[u8]| f32::from_le_bytes(b.try_into().expect("four bytes"));
        self.read_bytes().chunks(4).map(four).collect()
    }

    pub fn read_bytes(&self) -> Vec<u8> {
        // SAFETY: all bytes were written when the memory was made.
        unsafe { std::slice::from_raw_parts(self.first, self.bytes) }.to_vec()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the whole map is this value's own.
        unsafe { libc::munmap(self.map.cast(), (self.pages + 2) * PAGE) };
    }
}

/// A leaf's machine code in executable memory.
pub struct Code {
    map: *mut u8,
    pages: usize,
}

impl Code {
    pub fn new(bytes: &[u8]) -> Code {
        let pages = bytes.len().div_ceil(PAGE);
        let map = map(pages, libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: the map is large enough and nobody else's.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), map, bytes.len()) };
        protect(map, pages, libc::PROT_READ | libc::PROT_EXEC);
        Code { map, pages }
    }

    /// Calls it with the address of its argument block.
    pub fn call<T>(&self, arguments: *mut T) {
        // SAFETY: leaves are functions of one pointer; the caller's block describes its memory.
        unsafe {
            let leaf: unsafe extern "C" fn(*mut T) = std::mem::transmute(self.map);
            leaf(arguments);
        }
    }
}

impl Drop for Code {
    fn drop(&mut self) {
        // SAFETY: the whole map is this value's own, and no call is running.
        unsafe { libc::munmap(self.map.cast(), self.pages * PAGE) };
    }
}

fn map(pages: usize, protection: i32) -> *mut u8 {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a fresh anonymous map touches nothing that exists.
    let at =
        unsafe { libc::mmap(ptr::null_mut(), (pages * PAGE).max(1), protection, flags, -1, 0) };
    assert_ne!(at, libc::MAP_FAILED, "there is memory");
    at.cast()
}

fn protect(at: *mut u8, pages: usize, protection: i32) {
    if pages > 0 {
        // SAFETY: the pages belong to a map of this module.
        assert_eq!(unsafe { libc::mprotect(at.cast(), pages * PAGE, protection) }, 0);
    }
}

//! Inflating with ISA-L (igzip), which takes half the time of any portable inflate.
//!
//! ISA-L forgets the flags of a gzip header that is cut in two, so the header is the caller's; the data and the
//! trailer behind it are read here.
use isal_sys::igzip_lib as isal;

/// Why deflate data cannot be inflated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InflateError {
    /// The data contradicts itself.
    Data,
    /// Checksum or length of the trailer do not match the data.
    Trailer,
}

/// What one call has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inflated {
    /// Bytes of the input that were read.
    pub taken: usize,
    /// Bytes of the output that were written.
    pub given: usize,
    /// The trailer was read and is right.
    pub ended: bool,
}

/// The state of one gzip member behind its header.
pub struct Inflater {
    state: Box<isal::inflate_state>,
}

impl std::fmt::Debug for Inflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inflater").field("state", &self.state.block_state).finish()
    }
}

// SAFETY: the pointers in the state are null between calls; nothing else in it belongs to a thread.
unsafe impl Send for Inflater {}

impl Default for Inflater {
    fn default() -> Inflater {
        Inflater::new()
    }
}

impl Inflater {
    /// At the first byte of deflate data.
    pub fn new() -> Inflater {
        // SAFETY: the state is integers, arrays of them and pointers, for which all zeroes are valid values.
        let mut state: Box<isal::inflate_state> = Box::new(unsafe { std::mem::zeroed() });
        // SAFETY: it only writes to the state, which it gets whole.
        unsafe { isal::isal_inflate_init(&raw mut *state) };
        let mut inflater = Inflater { state };
        inflater.reset();
        inflater
    }

    /// Goes to the first byte of the next member's deflate data.
    pub fn reset(&mut self) {
        // SAFETY: it only writes to the state, which was initialised.
        unsafe { isal::isal_inflate_reset(&raw mut *self.state) };
        // No header, but checksum and length behind the data, which it verifies.
        self.state.crc_flag = isal::ISAL_GZIP_NO_HDR_VER;
    }

    /// Inflates from `input` to `output` until one of them is used up or the member ends.
    pub fn inflate(&mut self, input: &[u8], output: &mut [u8]) -> Result<Inflated, InflateError> {
        let (available, room) = (clamp(input.len()), clamp(output.len()));
        self.state.next_in = input.as_ptr().cast_mut();
        self.state.avail_in = available;
        self.state.next_out = output.as_mut_ptr();
        self.state.avail_out = room;
        // SAFETY: both pointers are valid for the lengths beside them, the input is only read (the field is not
        // const because C's users share it with writers), and the state was initialised. What it keeps of the
        // output for later references is a copy in the state.
        let result = unsafe { isal::isal_inflate(&raw mut *self.state) };
        let taken = available - self.state.avail_in;
        let given = room - self.state.avail_out;
        self.state.next_in = std::ptr::null_mut();
        self.state.next_out = std::ptr::null_mut();
        self.state.avail_in = 0;
        self.state.avail_out = 0;
        match result {
            0 => Ok(Inflated {
                taken: taken as usize,
                given: given as usize,
                ended: self.state.block_state == isal::isal_block_state_ISAL_BLOCK_FINISH,
            }),
            isal::ISAL_INCORRECT_CHECKSUM => Err(InflateError::Trailer),
            _ => Err(InflateError::Data),
        }
    }
}

/// ISA-L counts in 32 bits; a caller with more comes again.
fn clamp(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(1 << 30)
}

//! A bound on what a connection brings while none of it is content: trailers after the last chunk may go on for ever,
//! and the HTTP library reads them to their end within one call.
use std::cell::Cell;
use std::time::{Duration, Instant};
use ureq::Timeout;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

/// The most bytes that one read of a body takes from the connection; it returns as soon as there is content, and the
/// library's buffer has 128 KiB.
const BYTES_MAX: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
#[error("the body goes on without content")]
struct NoContent;

#[derive(Clone, Copy)]
struct Meter {
    bytes: usize,
    until: Instant,
}

thread_local! {
    /// Of the read that this thread is in; the library calls the transport in the reader's thread.
    static METER: Cell<Option<Meter>> = const { Cell::new(None) };
}

/// Does one read of a body, which has to bring content or the end within `time` and [`BYTES_MAX`].
pub fn metered<T>(time: Duration, read: impl FnOnce() -> T) -> T {
    METER.set(Some(Meter { bytes: BYTES_MAX, until: Instant::now() + time }));
    let result = read();
    METER.set(None);
    result
}

fn spend(bytes: usize) -> Result<(), ureq::Error> {
    let Some(meter) = METER.get() else { return Ok(()) };
    if bytes > meter.bytes {
        return Err(ureq::Error::Other(Box::new(NoContent)));
    }
    if Instant::now() > meter.until {
        return Err(ureq::Error::Timeout(Timeout::RecvBody));
    }
    METER.set(Some(Meter { bytes: meter.bytes - bytes, ..meter }));
    Ok(())
}

/// Wraps the connections that another connector makes.
#[derive(Debug)]
pub struct Metering;

impl<In: Transport> Connector<In> for Metering {
    type Out = Metered<In>;

    fn connect(
        &self,
        _details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        Ok(chained.map(Metered))
    }
}

/// A connection whose input is counted.
#[derive(Debug)]
pub struct Metered<T>(T);

impl<T: Transport> Transport for Metered<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.0.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let before = self.0.buffers().input().len();
        let more = self.0.await_input(timeout)?;
        let after = self.0.buffers().input().len();
        spend(after.saturating_sub(before))?;
        Ok(more)
    }

    fn is_open(&mut self) -> bool {
        self.0.is_open()
    }

    fn is_tls(&self) -> bool {
        self.0.is_tls()
    }
}

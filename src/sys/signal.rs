//! Signal dispositions.
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::SysError;

/// Gives `signal` its default action.
pub fn set_default(signal: Signal) -> Result<(), SysError> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: SIG_DFL is no function of ours that could break an invariant when it runs.
    unsafe { sigaction(signal, &default) }.map(drop).map_err(SysError::on("sigaction", signal.as_str()))
}

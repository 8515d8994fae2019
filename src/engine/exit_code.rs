//! docker's exit codes for what is not the container's own end.
use crate::error::{ErrorKind, Kind};
use crate::runtime::launch::LaunchError;
use crate::runtime::program::EXEC_STEP;

/// corten itself failed.
pub const TOOL: u8 = 125;
/// The command is there but cannot be invoked.
pub const NOT_INVOKABLE: u8 = 126;
/// The command is not there.
pub const NOT_FOUND: u8 = 127;

/// The code of a start that failed on the container's side: the command's fault, or the tool's.
pub fn of_launch(error: &LaunchError) -> u8 {
    match error {
        LaunchError::Container(failure) if failure.step == EXEC_STEP => match failure.kind() {
            ErrorKind::NotFound => NOT_FOUND,
            _ => NOT_INVOKABLE,
        },
        _ => TOOL,
    }
}

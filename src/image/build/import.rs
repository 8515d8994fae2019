//! `import`: a root file system becomes an image of one layer.
use super::{Base, Description, Draft, Instruction, NewLayer, Result};
use crate::image::platform::Platform;
use crate::image::reference::Reference;
use crate::image::store::{Image, Store};
use crate::image::unpack::Limits;
use std::fs::File;

/// What is imported, and as what.
#[derive(Debug)]
pub struct Import<'a> {
    /// A tar archive, plain or packed with gzip or zstd: a file or a pipe.
    pub input: File,
    /// The image's name, if it gets one.
    pub name: Option<&'a Reference>,
    pub platform: &'a Platform,
    pub changes: &'a [Instruction],
    pub description: &'a Description,
    pub limits: Limits,
}

/// Makes the image; the archive becomes its layer as it is.
pub fn import(store: &Store, what: Import<'_>) -> Result<Image> {
    let import = store.import()?;
    let mut draft = Draft::new(store, Base::Scratch(what.platform))?;
    draft.change(what.changes)?;
    let result = NewLayer::read(&import, what.input, what.limits.growth)
        .and_then(|layer| draft.finish(&import, layer, what.description, what.name, &what.limits));
    // The blob of what was refused belongs to nobody.
    if result.is_err()
        && let Err(error) = import.abandon()
    {
        tracing::warn!("cannot collect what a failed import has left: {}", crate::error::chain(&error));
    }
    result
}

//! `corten inspect`
use super::{Context, report};
use crate::engine::EngineError;
use crate::engine::inspect::inspect;
use crate::image::store::{Image, Store, StoreError};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

/// Show all that is known of containers and images, as a JSON array in docker's words
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Look for one kind alone; otherwise a container wins over an image
    #[arg(long = "type", value_enum, value_name = "KIND")]
    kind: Option<Kind>,
    /// By name, id or the beginning of the id
    #[arg(value_name = "CONTAINER|IMAGE", required = true)]
    objects: Vec<String>,
}

/// Show all that is known of images, as a JSON array in docker's words
#[derive(Debug, Args)]
pub struct ImageInspectArgs {
    /// By name or ID
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

/// What may be inspected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Container,
    Image,
}

/// Runs `corten inspect`.
pub fn run(args: &InspectArgs, context: &Context) -> anyhow::Result<u8> {
    all(&args.objects, |name| match args.kind {
        Some(Kind::Container) => container(context, name),
        Some(Kind::Image) => image(context, name),
        None => match container(context, name) {
            Err(error) if is_missing(&error) => match image(context, name) {
                // It is neither: what docker says first of the two.
                Err(other) if is_no_image(&other) => Err(error),
                result => result,
            },
            result => result,
        },
    })
}

/// Runs `corten image inspect`.
pub fn images(args: &ImageInspectArgs, context: &Context) -> anyhow::Result<u8> {
    all(&args.images, |name| image(context, name))
}

/// Prints what is found; the last failure gives the exit code.
fn all(names: &[String], mut find: impl FnMut(&str) -> anyhow::Result<Value>) -> anyhow::Result<u8> {
    let (mut all, mut code) = (Vec::new(), 0);
    for name in names {
        match find(name) {
            Ok(value) => all.push(value),
            Err(error) => code = report(&error),
        }
    }
    super::output::stdout(serde_json::to_string_pretty(&all)? + "\n")?;
    Ok(code)
}

fn is_missing(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(EngineError::NoSuchContainer { .. }))
}

fn is_no_image(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(StoreError::NoImage { .. } | StoreError::Name { .. }))
}

fn container(context: &Context, name: &str) -> anyhow::Result<Value> {
    Ok(context.engine.find(name).and_then(|record| inspect(&context.engine, &record))?)
}

fn image(context: &Context, name: &str) -> anyhow::Result<Value> {
    let store = context.store()?;
    Ok(describe(&store, &store.resolve(name)?)?)
}

/// An image under docker's keys; `Digest` is podman's.
fn describe(store: &Store, image: &Image) -> Result<Value, StoreError> {
    let (manifest, config) = store.documents(image)?;
    let configuration = &config.configuration;
    let mut layers = store.stack(&image.chain)?.into_iter();
    let upper = layers.next();
    let lower: Vec<String> = layers.map(|dir| dir.to_string_lossy().into_owned()).collect();
    let last = configuration.history().iter().flatten().next_back();
    let tags: Vec<String> = image
        .names
        .iter()
        .filter(|name| name.tag().is_some())
        .map(|name| {
            let (repository, tag) = super::images::split(name);
            format!("{repository}:{}", tag.unwrap_or_default())
        })
        .collect();
    let mut digests: Vec<String> = image
        .names
        .iter()
        .map(|name| format!("{}@{}", super::images::split(name).0, image.manifest.digest))
        .collect();
    digests.sort();
    digests.dedup();
    Ok(json!({
        "Id": image.id,
        "Digest": image.manifest.digest,
        "RepoTags": tags,
        "RepoDigests": digests,
        "Comment": last.and_then(|step| step.comment().clone()).unwrap_or_default(),
        "Created": configuration.created(),
        "Author": configuration.author().clone().unwrap_or_default(),
        "Config": configuration.config(),
        "Architecture": configuration.architecture().to_string(),
        "Variant": configuration.variant(),
        "Os": configuration.os().to_string(),
        "Size": image.size,
        "ManifestType": image.manifest.media_type,
        "GraphDriver": {"Name": "overlay", "Data": {"UpperDir": upper, "LowerDir": lower.join(":")}},
        "RootFS": {"Type": "layers", "Layers": config.diff_ids},
        "Layers": manifest.layers.iter().map(|layer| &layer.descriptor).collect::<Vec<_>>(),
        "History": configuration.history(),
    }))
}

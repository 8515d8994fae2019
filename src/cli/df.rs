//! `corten df`
use super::Context;
use super::images::size;
use super::output::{stdout, table};
use crate::engine::disk::DiskUse as EngineUse;
use crate::image::store::{DiskUse, ImageUse, Object, ObjectUse};
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::json;

/// Show what images, layers, containers and volumes take on the disk
///
/// Sizes are those of disk blocks, as du(1) counts them; hard links count once. Reclaimable is what
/// `corten prune --all` frees.
#[derive(Debug, Args)]
pub struct DfArgs {
    /// Also each image, layer, container, volume and download
    #[arg(long, short)]
    pub verbose: bool,
    /// What to print; JSON always has everything, in bytes
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    pub format: Format,
}

/// How `df` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns
    Table,
    /// A JSON object
    Json,
}

/// All things of one type.
#[derive(Debug, Default, Serialize)]
struct Row {
    #[serde(rename = "type")]
    kind: &'static str,
    /// How many there are.
    total: usize,
    /// How many of them containers use.
    active: usize,
    /// In bytes, as all that follow.
    size: u64,
    /// What several images use.
    shared: u64,
    /// What one image uses.
    unique: u64,
    reclaimable: u64,
}

/// Runs `corten df`.
pub fn run(args: &DfArgs, context: &Context) -> anyhow::Result<u8> {
    let images = context.store()?.disk_use()?;
    let engine = context.engine.disk_use()?;
    let rows = rows(&images, &engine);
    let text = match args.format {
        Format::Json => format!("{}\n", report(&rows, &images, &engine)),
        Format::Table => {
            let mut text = summary(&rows);
            if args.verbose {
                text.push_str(&details(&images, &engine));
            }
            text
        }
    };
    stdout(text)?;
    Ok(0)
}

fn objects(kind: &'static str, objects: &[ObjectUse]) -> Row {
    let sum = |which: fn(&ObjectUse) -> bool| {
        objects.iter().filter(|object| which(object)).map(|object| object.bytes).sum()
    };
    Row {
        kind,
        total: objects.len(),
        active: objects.iter().filter(|object| object.containers > 0).count(),
        size: sum(|_| true),
        shared: sum(|object| object.images > 1),
        unique: sum(|object| object.images == 1),
        reclaimable: sum(|object| object.reclaimable),
    }
}

fn rows(images: &DiskUse, engine: &EngineUse) -> Vec<Row> {
    let sum = |bytes: &mut dyn Iterator<Item = u64>| bytes.sum();
    vec![
        Row {
            total: images.images.len(),
            active: images.images.iter().filter(|image| !image.containers.is_empty()).count(),
            ..objects("Images", &images.blobs)
        },
        objects("Layers", &images.layers),
        Row {
            kind: "Containers",
            total: engine.containers.len(),
            active: engine.containers.iter().filter(|container| container.live).count(),
            size: sum(&mut engine.containers.iter().map(|container| container.bytes)),
            ..Row::default()
        },
        Row {
            kind: "Volumes",
            total: engine.volumes.len(),
            active: engine.volumes.iter().filter(|volume| volume.containers > 0).count(),
            size: sum(&mut engine.volumes.iter().map(|volume| volume.bytes)),
            ..Row::default()
        },
        objects("Downloads", &images.staging),
        Row { kind: "Records", size: images.records + engine.records, ..Row::default() },
    ]
}

fn total(rows: &[Row], part: fn(&Row) -> u64) -> u64 {
    rows.iter().map(part).sum()
}

fn summary(rows: &[Row]) -> String {
    let heading = ["TYPE", "TOTAL", "ACTIVE", "SIZE", "SHARED", "UNIQUE", "RECLAIMABLE"];
    let mut cells = vec![heading.map(str::to_owned).to_vec()];
    for row in rows {
        let counts = match row.kind {
            "Records" => [String::new(), String::new()],
            _ => [row.total.to_string(), row.active.to_string()],
        };
        let sizes = [row.size, row.shared, row.unique, row.reclaimable].map(size);
        cells.push([row.kind.to_owned()].into_iter().chain(counts).chain(sizes).collect());
    }
    let sums = [total(rows, |row| row.size), total(rows, |row| row.reclaimable)].map(size);
    let [all, reclaimable] = sums;
    let empty = String::new;
    cells.push(vec!["All".to_owned(), empty(), empty(), all, empty(), empty(), reclaimable]);
    table(&cells)
}

fn names(image: &ImageUse) -> String {
    match image.names.is_empty() {
        true => "<none>".to_owned(),
        false => image.names.iter().map(|name| name.familiar()).collect::<Vec<_>>().join(", "),
    }
}

fn short(object: &Object) -> String {
    match object {
        Object::Image(digest) | Object::Layer(digest) | Object::Blob(digest) | Object::Download(digest) => {
            digest.hex()[..12].to_owned()
        }
        Object::Leftover(name) => name.clone(),
    }
}

fn details(images: &DiskUse, engine: &EngineUse) -> String {
    let mut text = String::new();
    let mut section = |title: &str, heading: &[&str], rows: Vec<Vec<String>>| {
        let heading: Vec<String> = heading.iter().map(ToString::to_string).collect();
        text.push_str(&format!("\n{title}\n\n{}", table(&[vec![heading], rows].concat())));
    };
    section(
        "Images, with their layers",
        &["IMAGE ID", "SIZE", "SHARED", "UNIQUE", "CONTAINERS", "NAMES"],
        images
            .images
            .iter()
            .map(|image| {
                let sizes = [image.shared + image.unique, image.shared, image.unique].map(size);
                let id = image.id.hex()[..12].to_owned();
                let last = [image.containers.len().to_string(), names(image)];
                [id].into_iter().chain(sizes).chain(last).collect()
            })
            .collect(),
    );
    let object = |object: &ObjectUse| {
        let counts = [object.images, object.containers].map(|count| count.to_string());
        [short(&object.object), size(object.bytes)].into_iter().chain(counts).collect()
    };
    section(
        "Layers",
        &["CHAIN ID", "SIZE", "IMAGES", "CONTAINERS"],
        images.layers.iter().map(object).collect(),
    );
    section(
        "Containers",
        &["CONTAINER ID", "SIZE", "NAMES"],
        engine
            .containers
            .iter()
            .map(|one| vec![one.id.chars().take(12).collect(), size(one.bytes), one.name.clone()])
            .collect(),
    );
    section(
        "Volumes",
        &["VOLUME NAME", "SIZE", "CONTAINERS"],
        engine
            .volumes
            .iter()
            .map(|one| vec![one.name.clone(), size(one.bytes), one.containers.to_string()])
            .collect(),
    );
    section(
        "Downloads and leftovers",
        &["NAME", "SIZE", "RECLAIMABLE"],
        images
            .staging
            .iter()
            .map(|one| vec![short(&one.object), size(one.bytes), one.reclaimable.to_string()])
            .collect(),
    );
    text
}

fn report(rows: &[Row], images: &DiskUse, engine: &EngineUse) -> serde_json::Value {
    let object = |one: &ObjectUse| {
        json!({
            "object": one.object, "size": one.bytes, "images": one.images, "containers": one.containers,
            "reclaimable": one.reclaimable,
        })
    };
    let image = |one: &ImageUse| {
        json!({
            "id": one.id, "names": one.names, "containers": one.containers, "size": one.shared + one.unique,
            "shared": one.shared, "unique": one.unique,
        })
    };
    json!({
        "size": total(rows, |row| row.size),
        "reclaimable": total(rows, |row| row.reclaimable),
        "types": rows,
        "images": images.images.iter().map(image).collect::<Vec<_>>(),
        "blobs": images.blobs.iter().map(object).collect::<Vec<_>>(),
        "layers": images.layers.iter().map(object).collect::<Vec<_>>(),
        "downloads": images.staging.iter().map(object).collect::<Vec<_>>(),
        "containers": engine.containers.iter()
            .map(|one| json!({"id": one.id, "name": one.name, "running": one.live, "size": one.bytes}))
            .collect::<Vec<_>>(),
        "volumes": engine.volumes.iter()
            .map(|one| json!({"name": one.name, "containers": one.containers, "size": one.bytes}))
            .collect::<Vec<_>>(),
    })
}

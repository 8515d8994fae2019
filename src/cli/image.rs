//! `corten image VERB`: docker's longer names of what is done with images.
use super::{Context, commit, history, images, inspect, load, prune, pull, push, rmi, save, tag};
use clap::{Args, Subcommand};

/// Work with images
#[derive(Debug, Args)]
pub struct ImageArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    History(history::HistoryArgs),
    Import(commit::ImportArgs),
    Inspect(inspect::ImageInspectArgs),
    Load(load::LoadArgs),
    #[command(visible_alias = "list")]
    Ls(images::ImagesArgs),
    Prune(prune::PruneArgs),
    Pull(pull::PullArgs),
    Push(push::PushArgs),
    #[command(visible_alias = "remove")]
    Rm(rmi::RmiArgs),
    Save(save::SaveArgs),
    Tag(tag::TagArgs),
    Untag(tag::UntagArgs),
}

/// Runs `corten image VERB`.
pub fn run(args: &ImageArgs, context: &Context) -> anyhow::Result<u8> {
    let root = &context.engine.root;
    match &args.verb {
        Verb::History(args) => history::run(args, context),
        Verb::Import(args) => commit::import(args, context),
        Verb::Inspect(args) => return inspect::images(args, context),
        Verb::Load(args) => load::run(args, root),
        Verb::Ls(args) => images::run(args, root),
        Verb::Pull(args) => pull::run(args, root),
        Verb::Push(args) => push::run(args, context),
        Verb::Prune(args) => return prune::run(args, context),
        Verb::Rm(args) => return rmi::run(args, context),
        Verb::Save(args) => save::run(args, context),
        Verb::Tag(args) => tag::run(args, context),
        Verb::Untag(args) => tag::untag(args, context),
    }
    .map(|()| 0)
}

//! `--version`.

/// dockerd and containerd read the lines with "version" and "commit:".
pub(super) fn text() -> String {
    let libseccomp =
        libseccomp::ScmpVersion::current().map_or_else(|_| "unknown".into(), |version| version.to_string());
    format!(
        "{} version {}\ncommit: {}\nspec: {}\nlibseccomp: {libseccomp}\n",
        super::NAME,
        env!("CARGO_PKG_VERSION"),
        commit(),
        super::OCI_VERSION,
    )
}

/// The commit that a packager's build names.
pub(super) fn commit() -> &'static str {
    option_env!("CORTEN_COMMIT").unwrap_or("unknown")
}

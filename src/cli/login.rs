//! `corten login` and `corten logout`
use anyhow::{Context, bail};
use clap::Args;
use std::io::{Read, Write};

use super::registry::ConnectionArgs;
use super::secret;
use crate::image::reference;
use crate::image::registry::credentials::Kept;
use crate::image::registry::{Client, Credentials, Login};

/// The longest password or token, in bytes.
const SECRET_MAX: u64 = 32 << 10;

/// Log in to a registry.
///
/// Asks the registry whether it accepts the credentials, then keeps them: with the credential helper that
/// Docker's or podman's configuration names, else in a file that only its owner can read.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// Which registry, such as quay.io or localhost:5000
    #[arg(value_name = "REGISTRY", default_value = "docker.io", value_parser = registry)]
    pub registry: String,
    /// User name; asked for on the terminal if absent
    #[arg(long, short, value_name = "NAME")]
    pub username: Option<String>,
    /// Read the password from standard input instead of the terminal
    #[arg(long, requires = "username")]
    pub password_stdin: bool,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// Forget the credentials for a registry.
#[derive(Debug, Args)]
pub struct LogoutArgs {
    /// Which registry
    #[arg(value_name = "REGISTRY", default_value = "docker.io", value_parser = registry)]
    pub registry: String,
    /// Forget those in this file alone [default: $REGISTRY_AUTH_FILE, else podman's auth.json and Docker's
    /// config.json]
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<std::path::PathBuf>,
}

/// `https://index.docker.io/v1/` and `quay.io/` are registries to those who copy them from elsewhere.
fn registry(text: &str) -> Result<String, String> {
    let bare = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let name = match bare {
        Some(rest) => rest.split('/').next().unwrap_or_default(),
        None => text.trim_end_matches('/'),
    };
    let name = match name {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        name => name,
    };
    if !reference::is_host(name) {
        return Err("want HOST[:PORT]".to_owned());
    }
    Ok(name.to_owned())
}

/// Runs `corten login`.
pub fn login(args: &LoginArgs) -> anyhow::Result<()> {
    let access = args.connection.access()?;
    access.check_registry(&args.registry)?;
    let username = match &args.username {
        Some(name) => name.clone(),
        None => secret::ask("Username")?,
    };
    // A colon would end it where it is sent.
    if username.is_empty() || username.contains(':') {
        bail!("invalid user name: it is empty, or has a colon");
    }
    let password = if args.password_stdin { password_stdin()? } else { secret::ask_silently("Password")? };
    if password.is_empty() {
        bail!("the password is empty");
    }
    let credentials = Credentials::new(&username, &password);
    let login = Client::log_in(&args.registry, credentials.clone(), &access)?;
    let kept = args.connection.environment().keep(&args.registry, &credentials)?;
    let mut out = std::io::stdout().lock();
    if login == Login::NotAsked {
        writeln!(out, "{} does not ask who one is; the credentials are kept all the same", args.registry)?;
    }
    match kept {
        Kept::File(path) => writeln!(out, "Login succeeded, kept in {}", path.display()),
        Kept::Helper(name) => writeln!(out, "Login succeeded, kept by docker-credential-{name}"),
    }
    .context("cannot print the result")
}

fn password_stdin() -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .take(SECRET_MAX + 1)
        .read_to_end(&mut bytes)
        .context("cannot read the password")?;
    if bytes.len() as u64 > SECRET_MAX {
        bail!("the password is longer than {SECRET_MAX} bytes");
    }
    let text = String::from_utf8(bytes).context("the password is not UTF-8")?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Runs `corten logout`.
pub fn logout(args: &LogoutArgs) -> anyhow::Result<()> {
    let connection = ConnectionArgs { authfile: args.authfile.clone(), ..ConnectionArgs::default() };
    let erased = connection.environment().erase(&args.registry)?;
    if erased.files.is_empty() && erased.helpers.is_empty() {
        bail!("there are no credentials for {}", args.registry);
    }
    let mut out = std::io::stdout().lock();
    for path in &erased.files {
        writeln!(out, "Removed from {}", path.display())?;
    }
    for name in &erased.helpers {
        writeln!(out, "Removed from docker-credential-{name}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries() {
        for (text, want) in [
            ("quay.io", "quay.io"),
            ("localhost:5000", "localhost:5000"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("quay.io/", "quay.io"),
            ("[::1]:5000", "[::1]:5000"),
        ] {
            assert_eq!(registry(text).unwrap(), want);
        }
        for bad in ["", "quay.io/team", "a b", "http://", "host:port", "../x"] {
            assert!(registry(bad).is_err(), "{bad}");
        }
    }
}

//! Images.
use super::Cri;
use super::api::{self, *};
use super::error::{CriError, Result, invalid};
use super::kept::nanos;
use crate::engine::timestamp::Timestamp;
use crate::image::reference::Reference;
use crate::image::registry::Credentials;
use crate::image::store::{Image, StoreError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What has the same id is the same image, however its layers were packed.
pub fn to_api(images: &[&Image]) -> api::Image {
    let (mut tags, mut digests) = (Vec::new(), Vec::new());
    for image in images {
        for name in &image.names {
            let repository = format!("{}/{}", name.registry(), name.repository());
            tags.extend(name.tag().map(|tag| format!("{repository}:{tag}")));
            let digest = name.digest().unwrap_or(&image.manifest.digest);
            digests.push(format!("{repository}@{digest}"));
        }
    }
    for list in [&mut tags, &mut digests] {
        list.sort_unstable();
        list.dedup();
    }
    let first = images.first();
    let config = first.and_then(|image| image.config.config().as_ref());
    let (uid, username) = user(config.and_then(|config| config.user().as_deref()).unwrap_or_default());
    api::Image {
        id: first.map(|image| image.id.to_string()).unwrap_or_default(),
        repo_tags: tags,
        repo_digests: digests,
        // An image of empty layers still has a manifest.
        size: first.map_or(0, |image| image.size.saturating_add(image.manifest.size)),
        uid,
        username,
        spec: None,
        pinned: false,
    }
}

/// The image's `USER` as a number or a name, without the group.
fn user(text: &str) -> (Option<Int64Value>, String) {
    let user = text.split(':').next().unwrap_or_default();
    match user.parse::<u32>() {
        Ok(uid) => (Some(Int64Value { value: uid.into() }), String::new()),
        Err(_) => (None, user.to_owned()),
    }
}

/// What a container's status calls its image: `repository@digest`, or the id of one without a name.
pub fn reference(image: &Image) -> String {
    to_api(&[image]).repo_digests.into_iter().next().unwrap_or_else(|| image.id.to_string())
}

/// The name in an image specification.
fn name(spec: Option<ImageSpec>) -> Result<String> {
    match spec.unwrap_or_default().image {
        name if name.is_empty() => Err(CriError::Missing { field: "image" }),
        name => Ok(name),
    }
}

/// What a client gives for a registry; none if it gives nothing.
fn credentials(auth: AuthConfig) -> Result<Option<Credentials>> {
    if !auth.identity_token.is_empty() {
        return Ok(Some(Credentials::identity(&auth.identity_token)));
    }
    if !auth.registry_token.is_empty() {
        return Ok(Some(Credentials::registry_token(&auth.registry_token)));
    }
    if !auth.username.is_empty() {
        return Ok(Some(Credentials::new(&auth.username, &auth.password)));
    }
    if auth.auth.is_empty() {
        return Ok(None);
    }
    let decoded = BASE64.decode(&auth.auth).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    match decoded.as_deref().and_then(|text| text.split_once(':')) {
        Some((user, password)) => Ok(Some(Credentials::new(user, password.trim_end_matches('\0')))),
        // Its value is a secret.
        None => invalid("auth.auth", "", "it is not base64 of USER:PASSWORD"),
    }
}

impl Cri {
    /// `ListImages`
    pub async fn list_images(self: &Arc<Self>, request: ListImagesRequest) -> Result<ListImagesResponse> {
        let wanted = request.filter.and_then(|filter| filter.image).unwrap_or_default().image;
        self.node
            .blocking(move |node| {
                let images = match wanted.as_str() {
                    "" => node.store.images()?,
                    name => match node.store.resolve(name) {
                        Ok(image) => vec![image],
                        Err(StoreError::NoImage { .. }) => Vec::new(),
                        Err(error) => return Err(CriError::from(error)),
                    },
                };
                let mut by_id: BTreeMap<String, Vec<&Image>> = BTreeMap::new();
                for image in &images {
                    by_id.entry(image.id.to_string()).or_default().push(image);
                }
                Ok(ListImagesResponse { images: by_id.values().map(|same| to_api(same)).collect() })
            })
            .await
    }

    /// `ImageStatus`: nothing for an image that is not there.
    pub async fn image_status(self: &Arc<Self>, request: ImageStatusRequest) -> Result<ImageStatusResponse> {
        let name = name(request.image)?;
        self.node
            .blocking(move |node| match node.store.resolve(&name) {
                Ok(image) => {
                    let info = if request.verbose { info(&image) } else { BTreeMap::new() };
                    Ok(ImageStatusResponse { image: Some(to_api(&[&image])), info })
                }
                Err(StoreError::NoImage { .. }) => Ok(ImageStatusResponse::default()),
                Err(error) => Err(error.into()),
            })
            .await
    }

    /// `PullImage`
    pub async fn pull_image(self: &Arc<Self>, request: PullImageRequest) -> Result<PullImageResponse> {
        let reference: Reference = name(request.image)?.parse()?;
        let credentials = request.auth.map(credentials).transpose()?.flatten();
        let image = self.node.pull(&reference, credentials).await?;
        Ok(PullImageResponse { image_ref: image.id.to_string() })
    }

    /// `RemoveImage`: all names go. What a container uses stays until it is removed, without a name.
    pub async fn remove_image(self: &Arc<Self>, request: RemoveImageRequest) -> Result<RemoveImageResponse> {
        let name = name(request.image)?;
        self.node
            .blocking(move |node| {
                let id = match node.store.resolve(&name) {
                    Ok(image) => image.id.to_string(),
                    // One that another tool left half there can be named, too.
                    Err(StoreError::NoLayer { .. } | StoreError::NoBlob { .. }) => name,
                    Err(StoreError::NoImage { .. }) => return Ok(()),
                    Err(error) => return Err(CriError::from(error)),
                };
                // Each manifest that makes this image.
                loop {
                    match node.store.remove(&id, true) {
                        Ok(removal) if removal.deleted.is_some() => {}
                        Ok(_) | Err(StoreError::NoImage { .. }) => return Ok(()),
                        Err(error) => return Err(error.into()),
                    }
                }
            })
            .await?;
        Ok(RemoveImageResponse {})
    }

    /// `ImageFsInfo`
    pub async fn image_fs_info(self: &Arc<Self>, _: ImageFsInfoRequest) -> Result<ImageFsInfoResponse> {
        let cri = Arc::clone(self);
        self.node
            .blocking(move |node| {
                let images = node.store.usage()?;
                let (mut bytes, mut inodes) = (0_u64, 0_u64);
                for id in node.engine.ids()? {
                    let used = cri.seen.writable(&node.engine, &id)?;
                    bytes = bytes.saturating_add(used.bytes);
                    inodes = inodes.saturating_add(used.inodes);
                }
                let usage = |mountpoint: &std::path::Path, bytes, inodes| FilesystemUsage {
                    timestamp: nanos(Timestamp::now()),
                    fs_id: Some(FilesystemIdentifier { mountpoint: mountpoint.display().to_string() }),
                    used_bytes: Some(UInt64Value { value: bytes }),
                    inodes_used: Some(UInt64Value { value: inodes }),
                };
                Ok::<_, CriError>(ImageFsInfoResponse {
                    image_filesystems: vec![usage(node.store.root(), images.bytes, images.inodes)],
                    container_filesystems: vec![usage(&node.engine.containers(), bytes, inodes)],
                })
            })
            .await
    }
}

/// What only people read.
fn info(image: &Image) -> BTreeMap<String, String> {
    let info = serde_json::json!({
        "chain": image.chain,
        "manifest": image.manifest.digest,
        "imageSpec": image.config,
    });
    BTreeMap::from([("info".to_owned(), info.to_string())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_of_images() {
        let of = |text: &str| {
            let (uid, name) = user(text);
            (uid.map(|uid| uid.value), name)
        };
        assert_eq!(of(""), (None, String::new()));
        assert_eq!(of("1002"), (Some(1002), String::new()));
        assert_eq!(of("1003:admin"), (Some(1003), String::new()));
        assert_eq!(of("www-data:100"), (None, "www-data".to_owned()));
    }

    #[test]
    fn credentials_come_in_several_forms() {
        let plain = AuthConfig { username: "u".into(), password: "p".into(), ..Default::default() };
        let encoded = AuthConfig { auth: BASE64.encode("u:p"), ..Default::default() };
        assert_eq!(credentials(plain).unwrap(), credentials(encoded).unwrap());
        assert_eq!(credentials(AuthConfig::default()).unwrap(), None);
        let token = AuthConfig { registry_token: "secret".into(), ..Default::default() };
        assert_eq!(credentials(token).unwrap(), Some(Credentials::registry_token("secret")));
        let token = AuthConfig { identity_token: "secret".into(), ..Default::default() };
        assert_eq!(credentials(token).unwrap(), Some(Credentials::identity("secret")));
        credentials(AuthConfig { auth: "!".into(), ..Default::default() }).unwrap_err();
    }
}

//! `ImageService`: which method answers which RPC.
use super::Cri;
use super::api::image_service_server::ImageService;
use super::api::*;
use super::runtime::{Chunks, chunks};
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// The service.
#[derive(Debug)]
pub struct Images(pub Arc<Cri>);

type Answer<T> = std::result::Result<Response<T>, Status>;

#[tonic::async_trait]
impl ImageService for Images {
    async fn list_images(&self, request: Request<ListImagesRequest>) -> Answer<ListImagesResponse> {
        self.0.told("ListImages", self.0.list_images(request.into_inner())).await
    }

    type StreamImagesStream = Chunks<StreamImagesResponse>;

    async fn stream_images(&self, request: Request<StreamImagesRequest>) -> Answer<Self::StreamImagesStream> {
        let filter = request.into_inner().filter;
        let list = self.0.told("StreamImages", self.0.list_images(ListImagesRequest { filter })).await?;
        Ok(Response::new(chunks(list.into_inner().images, |images| StreamImagesResponse { images })))
    }

    async fn image_status(&self, request: Request<ImageStatusRequest>) -> Answer<ImageStatusResponse> {
        self.0.told("ImageStatus", self.0.image_status(request.into_inner())).await
    }

    async fn pull_image(&self, request: Request<PullImageRequest>) -> Answer<PullImageResponse> {
        self.0.told("PullImage", self.0.pull_image(request.into_inner())).await
    }

    async fn remove_image(&self, request: Request<RemoveImageRequest>) -> Answer<RemoveImageResponse> {
        self.0.told("RemoveImage", self.0.remove_image(request.into_inner())).await
    }

    async fn image_fs_info(&self, request: Request<ImageFsInfoRequest>) -> Answer<ImageFsInfoResponse> {
        self.0.told("ImageFsInfo", self.0.image_fs_info(request.into_inner())).await
    }
}

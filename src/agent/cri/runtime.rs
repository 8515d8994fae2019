//! `RuntimeService`: which method answers which RPC.
use super::Cri;
use super::api::runtime_service_server::RuntimeService;
use super::api::*;
use super::error::{CriError, Result};
use super::events::Watching;
use std::sync::Arc;
use std::time::Instant;
use tonic::{Code, Request, Response, Status};

/// What is told in one message of a streamed list.
const CHUNK: usize = 64;

/// The service.
#[derive(Debug)]
pub struct Runtime(pub Arc<Cri>);

/// A list in messages.
pub type Chunks<T> = tokio_stream::Iter<std::vec::IntoIter<std::result::Result<T, Status>>>;
type Answer<T> = std::result::Result<Response<T>, Status>;

impl Cri {
    /// Waits for an answer, counts it, and turns an error into the protocol's form.
    pub async fn told<T>(&self, operation: &'static str, work: impl Future<Output = Result<T>>) -> Answer<T> {
        let begun = Instant::now();
        let result = work.await.map_err(Status::from);
        let code = result.as_ref().map_or_else(Status::code, |_| Code::Ok);
        self.node.metrics.observe("cri", operation, word(code), begun.elapsed());
        match &result {
            Ok(_) => tracing::debug!(operation, took = ?begun.elapsed(), "cri"),
            Err(status) => tracing::info!(operation, code = word(code), "cri: {}", status.message()),
        }
        result.map(Response::new)
    }
}

/// The names of codes in gRPC's documentation.
fn word(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Cuts a list into messages.
pub fn chunks<I, T>(items: Vec<I>, message: impl Fn(Vec<I>) -> T) -> Chunks<T> {
    let mut messages = Vec::with_capacity(items.len().div_ceil(CHUNK));
    let mut rest = items.into_iter();
    loop {
        let part: Vec<I> = rest.by_ref().take(CHUNK).collect();
        if part.is_empty() {
            return tokio_stream::iter(messages);
        }
        messages.push(Ok(message(part)));
    }
}

const METRICS: &str = "metrics are not built; ask for ListPodSandboxStats";
const CHECKPOINTS: &str = "checkpoints are not built";

async fn not_built<T>(what: &'static str, reason: &'static str) -> Result<T> {
    Err(CriError::NotBuilt { what, reason })
}

#[tonic::async_trait]
impl RuntimeService for Runtime {
    async fn version(&self, request: Request<VersionRequest>) -> Answer<VersionResponse> {
        self.0.told("Version", self.0.version(request.into_inner())).await
    }

    async fn run_pod_sandbox(&self, request: Request<RunPodSandboxRequest>) -> Answer<RunPodSandboxResponse> {
        self.0.told("RunPodSandbox", self.0.run_pod_sandbox(request.into_inner())).await
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<StopPodSandboxRequest>,
    ) -> Answer<StopPodSandboxResponse> {
        self.0.told("StopPodSandbox", self.0.stop_pod_sandbox(request.into_inner())).await
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<RemovePodSandboxRequest>,
    ) -> Answer<RemovePodSandboxResponse> {
        self.0.told("RemovePodSandbox", self.0.remove_pod_sandbox(request.into_inner())).await
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<PodSandboxStatusRequest>,
    ) -> Answer<PodSandboxStatusResponse> {
        self.0.told("PodSandboxStatus", self.0.pod_sandbox_status(request.into_inner())).await
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<ListPodSandboxRequest>,
    ) -> Answer<ListPodSandboxResponse> {
        self.0.told("ListPodSandbox", self.0.list_pod_sandbox(request.into_inner())).await
    }

    async fn create_container(
        &self,
        request: Request<CreateContainerRequest>,
    ) -> Answer<CreateContainerResponse> {
        self.0.told("CreateContainer", self.0.create_container(request.into_inner())).await
    }

    async fn start_container(
        &self,
        request: Request<StartContainerRequest>,
    ) -> Answer<StartContainerResponse> {
        self.0.told("StartContainer", self.0.start_container(request.into_inner())).await
    }

    async fn stop_container(&self, request: Request<StopContainerRequest>) -> Answer<StopContainerResponse> {
        self.0.told("StopContainer", self.0.stop_container(request.into_inner())).await
    }

    async fn remove_container(
        &self,
        request: Request<RemoveContainerRequest>,
    ) -> Answer<RemoveContainerResponse> {
        self.0.told("RemoveContainer", self.0.remove_container(request.into_inner())).await
    }

    async fn list_containers(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Answer<ListContainersResponse> {
        self.0.told("ListContainers", self.0.list_containers(request.into_inner())).await
    }

    async fn container_status(
        &self,
        request: Request<ContainerStatusRequest>,
    ) -> Answer<ContainerStatusResponse> {
        self.0.told("ContainerStatus", self.0.container_status(request.into_inner())).await
    }

    async fn update_container_resources(
        &self,
        request: Request<UpdateContainerResourcesRequest>,
    ) -> Answer<UpdateContainerResourcesResponse> {
        self.0.told("UpdateContainerResources", self.0.update_container_resources(request.into_inner())).await
    }

    async fn reopen_container_log(
        &self,
        request: Request<ReopenContainerLogRequest>,
    ) -> Answer<ReopenContainerLogResponse> {
        self.0.told("ReopenContainerLog", self.0.reopen_container_log(request.into_inner())).await
    }

    async fn exec_sync(&self, request: Request<ExecSyncRequest>) -> Answer<ExecSyncResponse> {
        self.0.told("ExecSync", self.0.exec_sync(request.into_inner())).await
    }

    async fn exec(&self, request: Request<ExecRequest>) -> Answer<ExecResponse> {
        self.0.told("Exec", self.0.exec(request.into_inner())).await
    }

    async fn attach(&self, request: Request<AttachRequest>) -> Answer<AttachResponse> {
        self.0.told("Attach", self.0.attach(request.into_inner())).await
    }

    async fn port_forward(&self, request: Request<PortForwardRequest>) -> Answer<PortForwardResponse> {
        self.0.told("PortForward", self.0.port_forward(request.into_inner())).await
    }

    async fn container_stats(
        &self,
        request: Request<ContainerStatsRequest>,
    ) -> Answer<ContainerStatsResponse> {
        self.0.told("ContainerStats", self.0.container_stats(request.into_inner())).await
    }

    async fn list_container_stats(
        &self,
        request: Request<ListContainerStatsRequest>,
    ) -> Answer<ListContainerStatsResponse> {
        self.0.told("ListContainerStats", self.0.list_container_stats(request.into_inner())).await
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<PodSandboxStatsRequest>,
    ) -> Answer<PodSandboxStatsResponse> {
        self.0.told("PodSandboxStats", self.0.pod_sandbox_stats(request.into_inner())).await
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<ListPodSandboxStatsRequest>,
    ) -> Answer<ListPodSandboxStatsResponse> {
        self.0.told("ListPodSandboxStats", self.0.list_pod_sandbox_stats(request.into_inner())).await
    }

    async fn update_runtime_config(
        &self,
        request: Request<UpdateRuntimeConfigRequest>,
    ) -> Answer<UpdateRuntimeConfigResponse> {
        self.0.told("UpdateRuntimeConfig", self.0.update_runtime_config(request.into_inner())).await
    }

    async fn status(&self, request: Request<StatusRequest>) -> Answer<StatusResponse> {
        self.0.told("Status", self.0.status(request.into_inner())).await
    }

    async fn runtime_config(&self, request: Request<RuntimeConfigRequest>) -> Answer<RuntimeConfigResponse> {
        self.0.told("RuntimeConfig", self.0.runtime_config(request.into_inner())).await
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<UpdatePodSandboxResourcesRequest>,
    ) -> Answer<UpdatePodSandboxResourcesResponse> {
        self.0
            .told("UpdatePodSandboxResources", self.0.update_pod_sandbox_resources(request.into_inner()))
            .await
    }

    type StreamPodSandboxesStream = Chunks<StreamPodSandboxesResponse>;

    async fn stream_pod_sandboxes(
        &self,
        request: Request<StreamPodSandboxesRequest>,
    ) -> Answer<Self::StreamPodSandboxesStream> {
        let filter = request.into_inner().filter;
        let list = self
            .0
            .told("StreamPodSandboxes", self.0.list_pod_sandbox(ListPodSandboxRequest { filter }))
            .await?;
        Ok(Response::new(chunks(list.into_inner().items, |pod_sandboxes| StreamPodSandboxesResponse {
            pod_sandboxes,
        })))
    }

    type StreamContainersStream = Chunks<StreamContainersResponse>;

    async fn stream_containers(
        &self,
        request: Request<StreamContainersRequest>,
    ) -> Answer<Self::StreamContainersStream> {
        let filter = request.into_inner().filter;
        let list =
            self.0.told("StreamContainers", self.0.list_containers(ListContainersRequest { filter })).await?;
        Ok(Response::new(chunks(list.into_inner().containers, |containers| StreamContainersResponse {
            containers,
        })))
    }

    type StreamContainerStatsStream = Chunks<StreamContainerStatsResponse>;

    async fn stream_container_stats(
        &self,
        request: Request<StreamContainerStatsRequest>,
    ) -> Answer<Self::StreamContainerStatsStream> {
        let filter = request.into_inner().filter;
        let list = self
            .0
            .told("StreamContainerStats", self.0.list_container_stats(ListContainerStatsRequest { filter }))
            .await?;
        Ok(Response::new(chunks(list.into_inner().stats, |container_stats| StreamContainerStatsResponse {
            container_stats,
        })))
    }

    type StreamPodSandboxStatsStream = Chunks<StreamPodSandboxStatsResponse>;

    async fn stream_pod_sandbox_stats(
        &self,
        request: Request<StreamPodSandboxStatsRequest>,
    ) -> Answer<Self::StreamPodSandboxStatsStream> {
        let filter = request.into_inner().filter;
        let list = self
            .0
            .told(
                "StreamPodSandboxStats",
                self.0.list_pod_sandbox_stats(ListPodSandboxStatsRequest { filter }),
            )
            .await?;
        Ok(Response::new(chunks(list.into_inner().stats, |pod_sandbox_stats| {
            StreamPodSandboxStatsResponse { pod_sandbox_stats }
        })))
    }

    type GetContainerEventsStream = Watching;

    async fn get_container_events(&self, _: Request<GetEventsRequest>) -> Answer<Watching> {
        Ok(Response::new(self.0.events.watch()))
    }

    type StreamPodSandboxMetricsStream = Chunks<StreamPodSandboxMetricsResponse>;

    async fn stream_pod_sandbox_metrics(
        &self,
        _: Request<StreamPodSandboxMetricsRequest>,
    ) -> Answer<Self::StreamPodSandboxMetricsStream> {
        self.0.told("StreamPodSandboxMetrics", not_built("StreamPodSandboxMetrics", METRICS)).await
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<ListMetricDescriptorsRequest>,
    ) -> Answer<ListMetricDescriptorsResponse> {
        self.0.told("ListMetricDescriptors", not_built("ListMetricDescriptors", METRICS)).await
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<ListPodSandboxMetricsRequest>,
    ) -> Answer<ListPodSandboxMetricsResponse> {
        self.0.told("ListPodSandboxMetrics", not_built("ListPodSandboxMetrics", METRICS)).await
    }

    async fn checkpoint_container(
        &self,
        _: Request<CheckpointContainerRequest>,
    ) -> Answer<CheckpointContainerResponse> {
        self.0.told("CheckpointContainer", not_built("CheckpointContainer", CHECKPOINTS)).await
    }

    async fn checkpoint_pod(&self, _: Request<CheckpointPodRequest>) -> Answer<CheckpointPodResponse> {
        self.0.told("CheckpointPod", not_built("CheckpointPod", CHECKPOINTS)).await
    }

    async fn restore_pod(&self, _: Request<RestorePodRequest>) -> Answer<RestorePodResponse> {
        self.0.told("RestorePod", not_built("RestorePod", CHECKPOINTS)).await
    }
}

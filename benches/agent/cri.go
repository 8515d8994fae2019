package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// server is a CRI server and what is launched on it.
type server struct {
	runtime cri.RuntimeServiceClient
	dir     string
	logs    string
	count   int
}

func connect(ctx context.Context, url, dir string) (*server, error) {
	connection, err := grpc.NewClient(url, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	logs, err := os.MkdirTemp("", "bench-agent")
	if err != nil {
		return nil, err
	}
	images := cri.NewImageServiceClient(connection)
	if _, err := images.PullImage(ctx, &cri.PullImageRequest{Image: &cri.ImageSpec{Image: image}}); err != nil {
		return nil, fmt.Errorf("%s: pull: %w", url, err)
	}
	return &server{runtime: cri.NewRuntimeServiceClient(connection), dir: dir, logs: logs}, nil
}

// The steps of a pod's life, in the order in which they are taken.
const (
	runPod = iota
	createContainer
	startContainer
	stopPod
	removePod
	steps
)

var names = [steps]string{"RunPodSandbox", "CreateContainer", "StartContainer", "StopPodSandbox", "RemovePodSandbox"}

// start launches a pod of one container that obeys SIGTERM, as a kubelet asks for it.
func (s *server) start(ctx context.Context, took *[steps]time.Duration) (string, error) {
	s.count++
	options := &cri.NamespaceOption{Pid: cri.NamespaceMode_CONTAINER}
	pod := &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: fmt.Sprint("bench-", s.count), Namespace: "bench", Uid: fmt.Sprint("uid-", s.count)},
		LogDirectory: fmt.Sprint(s.logs, "/", s.count),
		Linux: &cri.LinuxPodSandboxConfig{
			SecurityContext: &cri.LinuxSandboxSecurityContext{NamespaceOptions: options},
		},
	}
	begin := time.Now()
	made, err := s.runtime.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: pod})
	if err != nil {
		return "", err
	}
	took[runPod] = time.Since(begin)

	begin = time.Now()
	container, err := s.runtime.CreateContainer(ctx, &cri.CreateContainerRequest{
		PodSandboxId:  made.PodSandboxId,
		SandboxConfig: pod,
		Config: &cri.ContainerConfig{
			Metadata: &cri.ContainerMetadata{Name: "main"},
			Image:    &cri.ImageSpec{Image: image},
			Command:  []string{"sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait"},
			LogPath:  "main.log",
			Linux: &cri.LinuxContainerConfig{
				SecurityContext: &cri.LinuxContainerSecurityContext{NamespaceOptions: options},
			},
		},
	})
	if err != nil {
		return "", err
	}
	took[createContainer] = time.Since(begin)

	begin = time.Now()
	_, err = s.runtime.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: container.ContainerId})
	took[startContainer] = time.Since(begin)
	return made.PodSandboxId, err
}

func (s *server) end(ctx context.Context, pod string, took *[steps]time.Duration) error {
	begin := time.Now()
	if _, err := s.runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: pod}); err != nil {
		return err
	}
	took[stopPod] = time.Since(begin)
	begin = time.Now()
	_, err := s.runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: pod})
	took[removePod] = time.Since(begin)
	return err
}

// lives takes pods of all servers through their lives, one at a time: ours, the peer, and ours with its own bridge if
// it is there.
func lives(ctx context.Context, servers []*server, rounds int) ([]row, error) {
	var times [3][steps + 2][]time.Duration
	const warmUp = 3
	for round := range rounds + warmUp {
		for turn := range servers {
			which := (round + turn) % len(servers)
			s := servers[which]
			var took [steps]time.Duration
			pod, err := s.start(ctx, &took)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.dir, err)
			}
			if err := s.end(ctx, pod, &took); err != nil {
				return nil, fmt.Errorf("%s: %w", s.dir, err)
			}
			if round < warmUp {
				continue
			}
			for step := range steps {
				times[which][step] = append(times[which][step], took[step])
			}
			times[which][steps] = append(times[which][steps], took[runPod]+took[createContainer]+took[startContainer])
			times[which][steps+1] = append(times[which][steps+1], took[stopPod]+took[removePod])
		}
	}
	var rows []row
	add := func(which int, name string, index int, limit float64) {
		rows = append(rows, row{name, median(times[which][index]), median(times[1][index]), "ms", limit})
	}
	for step := range steps {
		add(0, "  "+names[step], step, 0)
	}
	add(0, "RunPodSandbox + Create + StartContainer", steps, 0.35)
	add(0, "StopPodSandbox + RemovePodSandbox", steps+1, 0.35)
	if len(servers) > 2 {
		add(2, "launch, with the agent's own bridge", steps, 0)
		add(2, "end, with the agent's own bridge", steps+1, 0)
	}
	return rows, nil
}

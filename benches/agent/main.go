// agent measures the node agent against another CRI server, and its ECS door by itself.
//
// One persistent connection to each server, rounds interleaved with the order changed in each, medians of the rounds.
// It prints a table and ends with 1 if a limit does not hold. scripts/bench-agent.sh starts what it needs.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"sort"
	"time"
)

const image = "registry.k8s.io/e2e-test-images/busybox:1.29-2"

// row is a line of the table. A limit of 0 is none; it is of the ratio if there is a peer, and else of the value.
type row struct {
	name       string
	ours, peer float64
	unit       string
	limit      float64
}

func (r row) holds() bool {
	switch {
	case r.limit == 0:
		return true
	case r.peer != 0:
		return r.ours <= r.limit*r.peer
	default:
		return r.ours <= r.limit
	}
}

func (r row) print() {
	text := fmt.Sprintf("%-44s %9.1f %-4s", r.name, r.ours, r.unit)
	if r.peer != 0 {
		text += fmt.Sprintf(" %9.1f %-4s %6.2f", r.peer, r.unit, r.ours/r.peer)
	} else {
		text += fmt.Sprintf(" %9s %-4s %6s", "", "", "")
	}
	if r.limit != 0 {
		verdict := "ok"
		if !r.holds() {
			verdict = "BROKEN"
		}
		text += fmt.Sprintf("  <= %-6.2f %s", r.limit, verdict)
	}
	fmt.Println(text)
}

func median(times []time.Duration) float64 {
	sort.Slice(times, func(a, b int) bool { return times[a] < times[b] })
	return float64(times[len(times)/2]) / float64(time.Millisecond)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "bench-agent:", err)
	os.Exit(2)
}

func main() {
	agent := flag.String("agent", "", "URL of the agent's CRI socket")
	agentDir := flag.String("agent-dir", "", "directory that is in the command line of each of its processes")
	peer := flag.String("peer", "", "URL of the other CRI socket")
	peerDir := flag.String("peer-dir", "", "directory that is in the command line of each of its processes")
	own := flag.String("own-bridge", "", "URL of the CRI socket of an agent that uses its own bridge")
	ecs := flag.String("ecs", "", "URL of the ECS door; its keys in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	rounds := flag.Int("rounds", 50, "rounds of each case")
	pods := flag.Int("pods", 50, "idle pods while memory is measured")
	flag.Parse()

	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	var rows []row
	ours, err := connect(ctx, *agent, *agentDir)
	if err != nil {
		fail(err)
	}
	theirs, err := connect(ctx, *peer, *peerDir)
	if err != nil {
		fail(err)
	}
	servers := []*server{ours, theirs}
	if *own != "" {
		embedded, err := connect(ctx, *own, "")
		if err != nil {
			fail(err)
		}
		servers = append(servers, embedded)
	}
	life, err := lives(ctx, servers, *rounds)
	if err != nil {
		fail(err)
	}
	rows = append(rows, life...)
	memory, err := idle(ctx, ours, theirs, *pods)
	if err != nil {
		fail(err)
	}
	rows = append(rows, memory...)
	if *ecs != "" {
		launches, err := launches(*ecs, *rounds)
		if err != nil {
			fail(err)
		}
		rows = append(rows, launches...)
	}

	fmt.Printf("%-44s %14s %14s %6s  %s\n", "case", "corten", "containerd", "ratio", "limit")
	broken := 0
	for _, r := range rows {
		r.print()
		if !r.holds() {
			broken++
		}
	}
	if broken > 0 {
		fmt.Printf("%d limits do not hold\n", broken)
		os.Exit(1)
	}
}

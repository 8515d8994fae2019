package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// use is memory of a server's processes in KiB.
type use struct {
	processes    int
	pss, private float64
}

// measure adds up the processes that have the server's directory in their command line, except for the shell that
// started it.
func (s *server) measure() (use, error) {
	var sum use
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return sum, err
	}
	for _, file := range files {
		line, err := os.ReadFile(file)
		dir := filepath.Dir(file)
		name, _ := os.ReadFile(dir + "/comm")
		// A process may end while we look.
		if err != nil || !strings.Contains(string(line), s.dir) || strings.HasSuffix(strings.TrimSpace(string(name)), "sh") ||
			strings.HasPrefix(string(line), "bash") || filepath.Base(dir) == strconv.Itoa(os.Getpid()) {
			continue
		}
		values, err := rollup(dir + "/smaps_rollup")
		if err != nil {
			continue
		}
		sum.processes++
		sum.pss += values["Pss"]
		sum.private += values["Private_Dirty"]
	}
	return sum, nil
}

func rollup(path string) (map[string]float64, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	values := map[string]float64{}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if len(words) == 3 && words[2] == "kB" {
			value, err := strconv.ParseFloat(words[1], 64)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			values[strings.TrimSuffix(words[0], ":")] = value
		}
	}
	return values, nil
}

// idle measures each server with so many idle pods, one server after the other.
func idle(ctx context.Context, ours, peer *server, pods int) ([]row, error) {
	var used [2]use
	for which, s := range []*server{ours, peer} {
		var ids []string
		var took [steps]time.Duration
		for range pods {
			id, err := s.start(ctx, &took)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.dir, err)
			}
			ids = append(ids, id)
		}
		// What was only needed to start them may be given back until then.
		time.Sleep(3 * time.Second)
		sum, err := s.measure()
		if err != nil {
			return nil, err
		}
		used[which] = sum
		for _, id := range ids {
			if err := s.end(ctx, id, &took); err != nil {
				return nil, fmt.Errorf("%s: %w", s.dir, err)
			}
		}
	}
	name := func(what string) string { return fmt.Sprintf("%s, %d idle pods", what, pods) }
	return []row{
		{name("processes"), float64(used[0].processes), float64(used[1].processes), "", 0},
		{name("private dirty memory"), used[0].private / 1024, used[1].private / 1024, "MiB", 0.3},
		{name("proportional memory (PSS)"), used[0].pss / 1024, used[1].pss / 1024, "MiB", 0.3},
	}, nil
}

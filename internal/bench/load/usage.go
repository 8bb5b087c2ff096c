package load

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	ticksPerSecond = 100 // USER_HZ, fixed on Linux
	maxDepth       = 64  // of a process tree
)

// Fields of /proc/PID/stat, counted from the state on.
const (
	statParent = 1
	statUser   = 11
	statSystem = 12
)

// Hop is one process of the way under test, with its descendants.
type Hop struct {
	Name string
	PID  int
}

// ParseHops reads "name=pid,name=pid".
func ParseHops(list string) ([]Hop, error) {
	var hops []Hop
	for part := range strings.SplitSeq(list, ",") {
		if part == "" {
			continue
		}
		name, pidText, ok := strings.Cut(part, "=")
		pid, err := strconv.Atoi(pidText)
		if !ok || err != nil {
			return nil, fmt.Errorf("hop %q: want name=pid", part)
		}
		hops = append(hops, Hop{name, pid})
	}
	return hops, nil
}

// usage is what a hop has used: processor time since its start, memory now.
type usage struct {
	cpu    float64 // seconds
	rssKB  int64
	peakKB int64 // sum of the processes' own peaks
}

// usageOf sums over each hop's process tree. Where there is no /proc it finds
// nothing.
func usageOf(hops []Hop) map[string]usage {
	if len(hops) == 0 {
		return nil
	}
	parents := parentPIDs()
	used := map[string]usage{}
	for _, h := range hops {
		u := used[h.Name]
		for pid := range parents {
			if !within(pid, h.PID, parents) {
				continue
			}
			u.cpu += cpuSeconds(pid)
			u.rssKB += statusKB(pid, "VmRSS:")
			u.peakKB += statusKB(pid, "VmHWM:")
		}
		used[h.Name] = u
	}
	return used
}

func within(pid, root int, parents map[int]int) bool {
	for range maxDepth {
		if pid == root {
			return true
		}
		next, ok := parents[pid]
		if !ok || next == 0 {
			return false
		}
		pid = next
	}
	return false
}

func parentPIDs() map[int]int {
	parents := map[int]int{}
	dirs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is good
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if fields := statFields(pid); len(fields) > statParent {
			parents[pid], _ = strconv.Atoi(fields[statParent])
		}
	}
	return parents
}

// statFields are the fields of /proc/PID/stat from the state on; nil once the
// process is gone.
func statFields(pid int) []string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	if i := bytes.LastIndexByte(stat, ')'); i >= 0 { // the name before it may hold anything
		return strings.Fields(string(stat[i+1:]))
	}
	return nil
}

func cpuSeconds(pid int) float64 {
	fields := statFields(pid)
	if len(fields) <= statSystem {
		return 0
	}
	user, _ := strconv.ParseFloat(fields[statUser], 64)
	system, _ := strconv.ParseFloat(fields[statSystem], 64)
	return (user + system) / ticksPerSecond
}

func statusKB(pid int, key string) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			kb, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kb
		}
	}
	return 0
}

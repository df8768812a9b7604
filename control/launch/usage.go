package launch

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Usage is what an instance, with all processes of its group, takes of the machine.
type Usage struct {
	// CPU time used since the start of the processes that live now.
	CPU time.Duration
	// MemoryBytes that are resident.
	MemoryBytes int64
}

// Usage measures every instance. It reads /proc once, however many there are.
func (l *Local) Usage() (map[string]Usage, error) {
	l.mu.Lock()
	groups := make(map[int]string, len(l.procs))

	for id, p := range l.procs {
		if pid := p.pid(); pid != 0 {
			groups[pid] = id
		}
	}
	l.mu.Unlock()

	if len(groups) == 0 {
		return map[string]Usage{}, nil
	}

	dir, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("measure instances: %w", err)
	}

	names, err := dir.Readdirnames(-1)
	_ = dir.Close()

	if err != nil {
		return nil, fmt.Errorf("measure instances: %w", err)
	}

	out := make(map[string]Usage, len(groups))

	for _, name := range names {
		if name[0] < '0' || name[0] > '9' {
			continue
		}

		// A process that has ended in between is no error.
		stat, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue
		}

		if group, use, ok := parseStat(stat); ok {
			if id, ours := groups[group]; ours {
				sum := out[id]
				sum.CPU += use.CPU
				sum.MemoryBytes += use.MemoryBytes
				out[id] = sum
			}
		}
	}

	return out, nil
}

// Fields of /proc/PID/stat behind the name of the program, see proc(5).
const (
	statGroup      = 2
	statUserTime   = 11
	statSystemTime = 12
	statResident   = 21
	// ticksPerSecond is USER_HZ, which is 100 wherever Linux runs.
	ticksPerSecond = 100
)

func parseStat(stat []byte) (group int, use Usage, ok bool) {
	// The name may hold anything, but the last parenthesis ends it.
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return 0, Usage{}, false
	}

	fields := strings.Fields(string(stat[end+1:]))
	if len(fields) <= statResident {
		return 0, Usage{}, false
	}

	var numbers [statResident + 1]int64

	for _, i := range []int{statGroup, statUserTime, statSystemTime, statResident} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, Usage{}, false
		}

		numbers[i] = n
	}

	ticks := numbers[statUserTime] + numbers[statSystemTime]

	return int(numbers[statGroup]), Usage{
		CPU:         time.Duration(ticks) * time.Second / ticksPerSecond,
		MemoryBytes: numbers[statResident] * int64(os.Getpagesize()),
	}, true
}

// memoryCheck is how often the memory of instances with a limit is looked at.
const memoryCheck = time.Second

// watchMemory ends the process when its group uses more than limit bytes.
func (p *process) watchMemory(limit int64) {
	ticker := time.NewTicker(memoryCheck)
	defer ticker.Stop()

	for {
		select {
		case <-p.gone:
			return
		case <-ticker.C:
		}

		all, err := p.owner.Usage()
		if err != nil {
			continue // tried again
		}

		if used := all[p.task.ID].MemoryBytes; used > limit {
			p.tail.note(outOfMemory(used, limit))
			p.kill()

			return
		}
	}
}

func outOfMemory(used, limit int64) string {
	return fmt.Sprintf("out of memory: it used %d MiB, and its specification allows %d MiB", used>>20, limit>>20)
}

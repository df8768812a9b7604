package batch

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// counters are the running Stats. Guarded by Batcher.mu.
type counters struct {
	Stats

	sizes map[int]*SizeStats
}

func (s *Span) add(d time.Duration) {
	s.Count++
	s.Total += d
}

func (c *counters) fail(d time.Duration) { c.Fail.add(d) }

func (c *counters) success(i *Info, whole time.Duration) {
	c.Inferences += int64(i.Rows)
	c.Success.add(whole)
	c.Queue.add(i.Queue)
	c.CopyIn.add(i.CopyIn)
	c.Run.add(i.Run)
	c.CopyOut.add(i.CopyOut)
}

func (c *counters) batch(i *Info, rows int, now time.Time) {
	c.Executions++
	c.LastInference = now

	if c.sizes == nil {
		c.sizes = make(map[int]*SizeStats)
	}

	s := c.sizes[rows]
	if s == nil {
		s = &SizeStats{BatchSize: rows}
		c.sizes[rows] = s
	}

	s.CopyIn.add(i.CopyIn)
	s.Run.add(i.Run)
	s.CopyOut.add(i.CopyOut)
}

// Stats are the counters since the Batcher was made.
func (b *Batcher) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()

	out := b.stats.Stats
	out.PendingRows = b.queue.rows

	for _, k := range slices.SortedFunc(maps.Keys(b.stats.sizes), cmp.Compare[int]) {
		out.Batches = append(out.Batches, *b.stats.sizes[k])
	}

	return out
}

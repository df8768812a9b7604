package serve

import (
	"context"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/batch"
	"github.com/sluice-gateway/sluice/runtime/codec/openinference"
	"github.com/sluice-gateway/sluice/runtime/repo"
)

// keepCall is the largest memory that a pooled call keeps.
const keepCall = 4 << 20

// call is the memory of one inference: the body, the decoded request and what the batcher
// gets. It goes back to the pool when both the handler and the batcher are done with it.
type call struct {
	app  *App
	refs atomic.Int32
	body []byte
	v2   openinference.Request
	req  batch.Request
	free func()

	// The borrowed model, until finished.
	model Model
	cm    *compiled
}

func newCall(a *App) *call {
	c := &call{app: a}
	c.free = c.release

	return c
}

func (a *App) call() *call {
	c, _ := a.calls.Get().(*call)
	c.refs.Store(1)

	return c
}

func (c *call) release() {
	switch n := c.refs.Add(-1); {
	case n > 0:
		return
	case n < 0:
		panic("BUG: serve: a call was released twice")
	}

	c.req = batch.Request{}
	c.model, c.cm = nil, nil
	c.v2.Reset()

	if cap(c.body)+c.v2.Memory() > keepCall {
		return // too much memory to keep; the pool makes another
	}

	c.app.calls.Put(c)
}

// take gets hold of the body for as long as the call lives.
func (c *call) take(x *Exchange) {
	if x.TakeBody != nil {
		c.body = x.TakeBody(c.body[:0])
	} else {
		c.body = append(c.body[:0], x.Body...)
	}

	x.Body = c.body
}

// prepare fills the batcher's request from the decoded one.
func (c *call) prepare(meta *repo.Meta, deadline time.Time) {
	c.req.Inputs, c.req.Rows, c.req.Outputs = c.v2.Inputs, c.v2.Rows, c.v2.Names
	c.req.Priority, c.req.QueueTimeout, c.req.Deadline = priority(meta, c.v2.Priority), c.v2.Timeout, deadline
}

// priority takes a level that the model does not have for its default, as Triton does: clients set
// priorities without knowing which models have them.
func priority(meta *repo.Meta, level int) int {
	s := meta.Config.Serving
	if s == nil || s.Batching == nil || level > s.Batching.PriorityLevels {
		return 0
	}

	return level
}

// infer runs the request, whose inputs lie in the memory of c.
func (c *call) infer(ctx context.Context) (*batch.Result, error) {
	c.refs.Add(1)
	c.req.Free = c.free

	return c.model.Infer(ctx, &c.req) //nolint:wrapcheck // a fault of the batcher
}

// submit is infer without waiting.
func (c *call) submit(m submitter, to batch.Receiver, out batch.Flusher) error {
	c.refs.Add(1)
	c.req.Free = c.free

	return m.Submit(&c.req, to, out) //nolint:wrapcheck // a fault of the batcher
}

// finish gives back what the call has borrowed.
func (c *call) finish() {
	if c.model != nil {
		c.model.Release()
		c.model = nil
	}

	c.release()
}

// deadline reads X-Sluice-Timeout-Ms; zero means none.
func deadline(x *Exchange) (time.Time, error) {
	v := x.Header.Get("X-Sluice-Timeout-Ms")
	if len(v) == 0 {
		return time.Time{}, nil
	}

	const most = int64(7 * 24 * time.Hour / time.Millisecond)

	ms, err := strconv.ParseInt(string(v), 10, 64)
	if err != nil || ms < 0 {
		return time.Time{}, fault.New(fault.InvalidArgument, "The header X-Sluice-Timeout-Ms must be a number of milliseconds.")
	}

	return x.Start.Add(time.Duration(min(ms, most)) * time.Millisecond), nil
}

// explain answers X-Sluice-Explain: 1.
func explain(x *Exchange, info *batch.Info) {
	if string(x.Header.Get("X-Sluice-Explain")) != "1" {
		return
	}

	b := make([]byte, 0, 128)
	b = append(b, "size="...)
	b = strconv.AppendInt(b, int64(info.BatchRows), 10)
	b = append(b, ";requests="...)
	b = strconv.AppendInt(b, int64(info.BatchRequests), 10)
	b = append(b, ";reason="...)
	b = append(b, info.Reason...)
	b = append(b, ";queue_us="...)
	b = strconv.AppendInt(b, info.Queue.Microseconds(), 10)
	b = append(b, ";copy_us="...)
	b = strconv.AppendInt(b, (info.CopyIn + info.CopyOut).Microseconds(), 10)
	b = append(b, ";run_us="...)
	b = strconv.AppendInt(b, info.Run.Microseconds(), 10)
	b = append(b, ";executor="...)
	b = strconv.AppendInt(b, int64(info.Executor), 10)

	x.add("X-Sluice-Batch", string(b))
}

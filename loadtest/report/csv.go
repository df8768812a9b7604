package report

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/sluice-gateway/sluice/loadtest"
)

// CSV writes one line for each level, with the column names of perf_analyzer. Times are in microseconds. What the
// server does not tell is 0; the time that this tool itself needs is part of the network's.
func CSV(w io.Writer, r *Report) error {
	out := csv.NewWriter(w)

	first := "Concurrency"
	if r.Main != nil && r.Main.Open {
		first = "Request Rate"
	}

	levels := r.Levels
	if len(levels) == 0 && r.Main != nil {
		levels = []*loadtest.Result{r.Main}
	}

	rows := make([][]string, 0, 1+len(levels))
	rows = append(rows, []string{
		first, "Inferences/Second", "Client Send", "Network+Server Send/Recv", "Server Queue", "Server Compute Input",
		"Server Compute Infer", "Server Compute Output", "Client Recv", "p50 latency", "p90 latency", "p95 latency", "p99 latency",
	})

	for _, l := range levels {
		var s Server
		if r.Server != nil && len(levels) == 1 {
			s = *r.Server
		}

		rows = append(rows, line(l, &s))
	}

	if err := out.WriteAll(rows); err != nil {
		return fmt.Errorf("write CSV: %w", err)
	}

	return nil
}

func line(l *loadtest.Result, s *Server) []string {
	level := strconv.Itoa(l.Concurrency)
	if l.Open {
		level = strconv.FormatFloat(l.Asked, 'g', -1, 64)
	}

	send := l.Schedule.Mean()

	recv := time.Duration(0)
	if l.FirstByte.Count() > 0 {
		recv = max(l.OK.Mean()-l.FirstByte.Mean(), 0)
	}

	network := max(l.OK.Mean()-send-recv-s.Queue-s.Input-s.Infer-s.Output, 0)
	times := []time.Duration{
		send, network, s.Queue, s.Input, s.Infer, s.Output, recv,
		l.OK.Quantile(0.5), l.OK.Quantile(0.9), l.OK.Quantile(0.95), l.OK.Quantile(0.99),
	}

	fields := make([]string, 0, 2+len(times))
	fields = append(fields, level, strconv.FormatFloat(l.Good, 'f', 2, 64))

	for _, d := range times {
		fields = append(fields, strconv.FormatInt(d.Microseconds(), 10))
	}

	return fields
}

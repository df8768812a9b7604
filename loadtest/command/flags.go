package command

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-gateway/sluice/internal/cli"
	"github.com/sluice-gateway/sluice/loadtest"
	"github.com/sluice-gateway/sluice/loadtest/report"
)

// UsageError is a mistake in the flags.
type UsageError struct{ Err error }

// Error implements error.
func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap implements errors.
func (e *UsageError) Unwrap() error { return e.Err }

// ErrMissed tells that the SLO was not held.
var ErrMissed = errors.New("the SLO was missed")

// ErrWorse tells that the run is worse than its baseline.
var ErrWorse = errors.New("the run is worse than its baseline")

var errEarly = errors.New("interrupted before any load")

type flags struct {
	// target
	url, method, body, contentType, path, unix string
	services, headers, files                   []string
	field, mix                                 string
	direct, insecure, noTemplate, noPreflight  bool
	allowHosts                                 []string
	auth                                       string
	v2, model                                  string
	v2Batch                                    int64
	v2Shapes                                   map[string]string
	stream, binaryMessages                     bool
	conn                                       cli.Options

	// load
	rate, from, maxRate       float64
	shape                     string
	steps, concurrency        int
	connections, inFlight     int
	threads                   int
	busyWait                  time.Duration
	duration, warmup, timeout time.Duration
	requests                  int64
	seed                      uint64
	untilStable               time.Duration

	// mode
	slo, sweep, search, compare string
	rounds                      int
	baseline, tolerance         string

	// output
	json, csv, html string
	quiet           bool
}

// New returns the command. version stands in reports.
func New(version string) *cobra.Command {
	f := &flags{}
	cmd := &cobra.Command{
		Use:   "loadtest (--url URL | --service NAME)",
		Short: "Measure a service under an exact load",
		Long: `Loadtest sends requests at a rate (open loop, --rate) or with a number of callers (closed loop,
--concurrency) and tells rate, latency percentiles and errors. In an open loop latency counts from the moment
at which a request was meant to start. Before any load one request is sent to see whether the target answers.

It never follows redirects, and sends to no host that was not named on the command line, except to this machine.
Exit status: 0, 1 when the test could not be done, 2 for wrong flags, 3 when the SLO was missed, 4 when the run is
worse than its baseline. An interrupt ends the run with a report of what was measured, which is judged in the same way.`,
		Example: `  sluice loadtest --service digits --file 7.png --concurrency 8 --duration 30s
  sluice loadtest --url http://127.0.0.1:9000/ --rate 5000 --slo p99=20ms,error=0.1% --html report.html
  sluice loadtest --service digits --v2 binary --search 100:20000 --slo p99=20ms
  sluice loadtest --url http://127.0.0.1:9000/ --compare http://127.0.0.1:9001/ --duration 20s
  sluice loadtest --url ws://127.0.0.1:9000/chat --body '{"n":{{.Seq}}}' --in-flight 16`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage("%q: no arguments are taken; give the target with --url or --service", args[0])
			}

			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd, version) },
	}

	f.targetFlags(cmd)
	f.loadFlags(cmd)
	f.modeFlags(cmd)

	return cmd
}

func usage(format string, args ...any) error { return &UsageError{fmt.Errorf(format, args...)} }

func (f *flags) targetFlags(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.url, "url", "", "target: http://, https://, ws:// or wss://")
	fl.StringArrayVar(&f.services, "service", nil, "service to call through the edge, by name or id; several share the load, NAME=WEIGHT")
	fl.StringVar(&f.mix, "mix", "", "services with weights: digits=70,faces=30")
	fl.StringVar(&f.path, "path", "", "path below the service")
	fl.StringVar(&f.unix, "unix", "", "connect to this Unix socket; --url gives the Host and the path")
	fl.StringVarP(&f.method, "method", "X", "", "HTTP method (default: GET, with a body POST)")
	fl.StringVar(&f.body, "body", "", "body; @FILE reads a file, @- standard input; {{.Seq}} {{.Rand N}} {{.Float}} {{.UUID}} {{.Now}} are replaced")
	fl.BoolVar(&f.noTemplate, "no-template", false, "send {{…}} in the body as it is")
	fl.StringArrayVarP(&f.headers, "header", "H", nil, `header field, "Name: value"`)
	fl.StringVar(&f.contentType, "content-type", "", "type of the body (default: application/json if it looks like it)")
	fl.StringArrayVarP(&f.files, "file", "f", nil, "file to send as multipart/form-data; may be given several times")
	fl.StringVar(&f.field, "field", "images", "name of the form field for files")
	fl.StringVar(&f.auth, "auth", "", "token, aksk, app, appcode, apikey or none (default: token with --service, else none)")
	fl.StringVar(&f.v2, "v2", "", "make Open Inference requests from the model's metadata: json or binary")
	fl.StringVar(&f.model, "model", "", "model for --v2 (default: the only one)")
	fl.Int64Var(&f.v2Batch, "v2-batch", 1, "size of the open first dimension for --v2")
	fl.StringToStringVar(&f.v2Shapes, "v2-shape", nil, "shape of an input for --v2: NAME=1x28x28")
	fl.BoolVar(&f.stream, "stream", false, "time the server-sent events of each answer")
	fl.BoolVar(&f.binaryMessages, "binary-messages", false, "send WebSocket messages as binary")
	fl.BoolVar(&f.direct, "direct", false, "call the instances of the service themselves, not through the edge")
	fl.StringArrayVar(&f.allowHosts, "allow-host", nil, "host that the platform may name as a target, beside this machine")
	fl.BoolVar(&f.noPreflight, "no-preflight", false, "do not send one request before the load")
	fl.BoolVar(&f.insecure, "insecure", false, "accept any certificate")
	fl.StringVar(&f.conn.CAFile, "ca-cert", "", "PEM file with certificates to trust")
	fl.StringVar(&f.conn.Data, "data", "", "data directory of a local sluice, for addresses and credentials (default: $SLUICE_DATA, else data)")
	fl.StringVar(&f.conn.Control, "control", "", "base URL of the control API")
	fl.StringVar(&f.conn.Edge, "edge", "", "base URL of the edge")
	fl.StringVar(&f.conn.Project, "project", "", "project id")
	fl.StringVar(&f.conn.Token, "token", "", "token to use (default: $SLUICE_TOKEN, else one is fetched)")
}

func (f *flags) loadFlags(cmd *cobra.Command) {
	const (
		duration = 10 * time.Second
		timeout  = 30 * time.Second
		callers  = 10
		busyWait = 200 * time.Microsecond
	)

	fl := cmd.Flags()
	fl.Float64Var(&f.rate, "rate", 0, "open loop: requests per second")
	fl.StringVar(&f.shape, "shape", "", "of an open loop: poisson (default), constant, ramp or step")
	fl.Float64Var(&f.from, "from", 0, "first rate of ramp and step (default: a tenth of --rate)")
	fl.IntVar(&f.steps, "steps", 0, "number of steps of the shape step (default 5)")
	fl.IntVarP(&f.concurrency, "concurrency", "c", callers, "closed loop: requests under way at any time")
	fl.IntVar(&f.connections, "connections", 0, "open loop: most connections (default 1000, or --concurrency if given); WebSockets: number of sockets")
	fl.IntVar(&f.inFlight, "in-flight", 1, "messages under way on each WebSocket")
	fl.DurationVarP(&f.duration, "duration", "d", duration, "measured time")
	fl.DurationVar(&f.warmup, "warmup", 0, "time before it that is not measured")
	fl.Int64VarP(&f.requests, "requests", "n", 0, "end after this many requests (default: no limit)")
	fl.DurationVar(&f.timeout, "timeout", timeout, "time-out of one request")
	fl.Float64Var(&f.maxRate, "max-rate", 0, "ceiling: never send more requests per second than this")
	fl.IntVar(&f.threads, "threads", 0, "sending threads (default: as many as there are processors; in an open loop one for each 120,000 requests a second)")
	fl.DurationVar(&f.busyWait, "busy-wait", busyWait, "open loop: do not sleep for so long before a request is due; 0 sleeps always and costs less")
	fl.Uint64Var(&f.seed, "seed", 1, "seed of arrivals, templates and mix")
	fl.DurationVar(&f.untilStable, "until-stable", 0, "end early when three windows of this length agree to within 10 %")
}

func (f *flags) modeFlags(cmd *cobra.Command) {
	const rounds = 5

	fl := cmd.Flags()
	fl.StringVar(&f.slo, "slo", "", "bounds that must hold: p99=20ms,error=0.1%,mean=5ms,rate=1000")
	fl.StringVar(&f.sweep, "sweep", "", "run at several levels: 1,2,4,8 or concurrency=1:64:*2 or rate=1000:9000:2000")
	fl.StringVar(&f.search, "search", "", "find the highest rate that holds the SLO: LOW or LOW:HIGH")
	fl.StringVar(&f.compare, "compare", "", "second target, run in turn with the first: A B A B")
	fl.IntVar(&f.rounds, "rounds", rounds, "rounds of a comparison; --duration is the time for each target in all of them")
	fl.StringVar(&f.baseline, "baseline", "", "hold the run against this JSON report of an earlier one; exit status 4 if it is worse")
	fl.StringVar(&f.tolerance, "tolerance", "10%", "how much worse than the baseline is fine, of each metric")
	fl.StringVar(&f.json, "json", "", "write the report as JSON to this file, - for standard output")
	fl.StringVar(&f.csv, "csv", "", "write a table with the columns of perf_analyzer, - for standard output")
	fl.StringVar(&f.html, "html", "", "write a page with plots")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "no progress")
}

// parsed is what flags mean beyond their own type.
type parsed struct {
	slo    loadtest.SLO
	levels *levels
	search *loadtest.SearchConfig
	stored *report.Stored // nil without --baseline
	// tolerance is a share.
	tolerance float64
}

func (f *flags) parse(cmd *cobra.Command) (*parsed, error) {
	p := &parsed{}

	if err := f.check(cmd); err != nil {
		return nil, err
	}

	var err error

	if f.slo != "" {
		if p.slo, err = loadtest.ParseSLO(f.slo); err != nil {
			return nil, usage("--slo %w", err)
		}
	}

	if f.sweep != "" {
		if p.levels, err = parseLevels(f.sweep, f.rate > 0); err != nil {
			return nil, usage("--sweep %s: %w", f.sweep, err)
		}

		if p.levels.rates && slices.Max(p.levels.values) > loadtest.MaxRate {
			return nil, usage("--sweep %s: at most %d a second", f.sweep, loadtest.MaxRate)
		}
	}

	if f.search != "" {
		if p.search, err = parseRange(f.search); err != nil {
			return nil, usage("--search %s: %w", f.search, err)
		}

		if len(p.slo) == 0 {
			return nil, usage("--search needs --slo")
		}
	}

	if f.baseline != "" {
		if p.stored, p.tolerance, err = f.readBaseline(); err != nil {
			return nil, usage("--baseline: %w", err)
		}
	}

	return p, nil
}

// readBaseline reads the stored run before any load.
func (f *flags) readBaseline() (*report.Stored, float64, error) {
	number, percent := strings.CutSuffix(strings.TrimSpace(f.tolerance), "%")

	tolerance, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if percent {
		tolerance /= 100
	}

	if err != nil || !(tolerance >= 0 && tolerance < 1) {
		return nil, 0, fmt.Errorf("--tolerance %s: want a share such as 10%%", f.tolerance)
	}

	file, err := os.Open(f.baseline)
	if err != nil {
		return nil, 0, err //nolint:wrapcheck // the error names the file
	}
	defer file.Close() //nolint:errcheck // read only

	stored, err := report.ReadStored(f.baseline, file)

	return stored, tolerance, err //nolint:wrapcheck // as above
}

// check finds flags that contradict each other.
func (f *flags) check(cmd *cobra.Command) error {
	set := func(name string) bool { return cmd.Flags().Changed(name) }
	modes := 0

	for _, m := range []string{f.sweep, f.search, f.compare} {
		if m != "" {
			modes++
		}
	}

	bodies := 0

	for _, b := range []bool{f.body != "", len(f.files) > 0, f.v2 != ""} {
		if b {
			bodies++
		}
	}

	switch {
	case f.url == "" && len(f.services) == 0 && f.mix == "":
		return usage("no target: give --url or --service")
	case modes > 1:
		return usage("--sweep, --search and --compare exclude each other")
	case f.baseline != "" && modes > 0:
		return usage("--baseline belongs to a single run: leave out --sweep, --search and --compare")
	case f.baseline == "" && set("tolerance"):
		return usage("--tolerance belongs to --baseline")
	case bodies > 1:
		return usage("--body, --file and --v2 exclude each other")
	case set("rate") && !(f.rate > 0):
		return usage("--rate %v: must be positive", f.rate)
	case max(f.rate, f.from) > loadtest.MaxRate:
		return usage("--rate %v: at most %d a second", max(f.rate, f.from), loadtest.MaxRate)
	case f.rate == 0 && f.search == "" && !strings.HasPrefix(f.sweep, "rate=") && (f.shape != "" || f.from != 0 || f.steps != 0):
		return usage("--shape, --from and --steps belong to an open loop: give --rate")
	case f.shape != "" && !validShape(f.shape):
		return usage("--shape %s: want constant, poisson, ramp or step", f.shape)
	case f.from < 0 || f.steps < 0 || f.maxRate < 0 || f.requests < 0 || f.threads < 0:
		return usage("--from, --steps, --max-rate, --requests and --threads must not be negative")
	case f.concurrency < 1 || f.inFlight < 1 || f.connections < 0 || f.rounds < 1:
		return usage("--concurrency, --in-flight and --rounds must be at least 1")
	case f.busyWait < 0:
		return usage("--busy-wait must not be negative")
	case f.duration <= 0 || f.timeout <= 0 || f.warmup < 0:
		return usage("--duration and --timeout must be positive, --warmup not negative")
	case f.maxRate > 0 && max(f.rate, f.from) > f.maxRate:
		return usage("--rate %v is above --max-rate %v", max(f.rate, f.from), f.maxRate)
	case f.v2 != "" && f.v2 != "json" && f.v2 != "binary":
		return usage("--v2 %s: want json or binary", f.v2)
	case f.direct && len(f.services) == 0 && f.mix == "":
		return usage("--direct needs --service")
	case f.json == "-" && f.csv == "-":
		return usage("--json - and --csv - exclude each other")
	}

	return nil
}

func validShape(s string) bool {
	switch loadtest.Shape(s) {
	case loadtest.Constant, loadtest.Poisson, loadtest.Ramp, loadtest.Step:
		return true
	}

	return false
}

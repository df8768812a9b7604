package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"time"
)

// options are the flags of "sluice-runtime serve".
type options struct {
	pkg, model, version string
	repository          string
	policies            policies
	treeSHA256          string
	listen, grpc, ops   string
	link                linkOptions
	direct              directOptions
	readyFD, parentFD   int
	drainDelay, grace   time.Duration
	linger              time.Duration
	orphan              time.Duration
	maxBody             int64
	library             string
	logLevel            string
	cacheDir            string
	cacheBytes          int64
}

const usage = `Usage: sluice-runtime serve --package DIR --model NAME [flags]
       sluice-runtime serve --repository DIR [--version-policy latest:1] [flags]

Serves one model package, or a directory of models with their versions, over HTTP. Flags:
`

var errUsage = errors.New("usage")

func parse(args []string, stderr io.Writer) (options, error) {
	var o options

	fs := flag.NewFlagSet("sluice-runtime serve", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		_, _ = io.WriteString(stderr, usage)

		fs.PrintDefaults()
	}

	fs.StringVar(&o.pkg, "package", "", "`directory` with config.json and the model, or a bare model.onnx")
	fs.StringVar(&o.model, "model", "", "`name` under which the model is served; with --repository the one that POST / asks")
	fs.StringVar(&o.version, "version", "1", "version under which the model is served; with --repository always the newest")
	fs.StringVar(&o.repository, "repository", "", "`directory` of models, NAME/VERSION/ or NAME/ with a package each, in place of --package")
	fs.Var(&o.policies, "version-policy", "which versions serve: all, latest:N or specific:V,V; NAME=`policy` for one model (default all; may be repeated)")
	fs.StringVar(&o.treeSHA256, "tree-sha256", "", "what the package must hash to")
	fs.StringVar(&o.listen, "listen", "127.0.0.1:8080", "`address` for HTTP: host:port or unix:PATH")
	o.link.flags(fs)
	fs.StringVar(&o.grpc, "grpc", "", "`address` for gRPC; empty means none")
	o.direct.flags(fs)
	fs.StringVar(&o.ops, "ops", "", "`address` for /metrics, /health and /debug/pprof; empty means none")
	fs.IntVar(&o.readyFD, "ready-fd", -1, "`descriptor` to which the addresses are written once they listen")
	fs.IntVar(&o.parentFD, "parent-fd", -1, "`descriptor` whose end of file means that the parent is gone")
	fs.DurationVar(&o.orphan, "orphan", 0,
		"how long to serve on without a parent that looks after the worker (SIGUSR1); 0 ends with the parent")
	fs.DurationVar(&o.drainDelay, "drain-delay", -1,
		"how long to keep accepting after SIGTERM (default 2s under a launcher, that is with --parent-fd, else 60s)")
	fs.DurationVar(&o.grace, "grace", 90*time.Second, "the longest time from SIGTERM to the end")
	fs.DurationVar(&o.linger, "fail-linger", 5*time.Second, "how long /health tells why the model cannot be loaded before the worker exits")
	fs.Int64Var(&o.maxBody, "max-body", 64<<20, "largest body in `bytes`, also when decompressed")
	fs.StringVar(&o.library, "onnxruntime", "", "`path` of libonnxruntime.so; empty means where make setup puts it, or $ONNXRUNTIME_LIB")
	fs.StringVar(&o.cacheDir, "cache-dir", "", "`directory` for optimised graphs of packages with execution.cache_optimized_model; may be shared by workers")
	fs.Int64Var(&o.cacheBytes, "cache-bytes", 8<<30, "bound of the cache in `bytes`; the longest unused graphs go first")
	fs.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")

	if len(args) == 0 || args[0] != "serve" {
		fs.Usage()

		return o, errUsage
	}

	if err := fs.Parse(args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return o, err //nolint:wrapcheck // told apart by the caller
		}

		return o, errUsage
	}

	return o, o.check(fs)
}

func (o *options) check(fs *flag.FlagSet) error {
	var errs []error

	if fs.NArg() > 0 {
		errs = append(errs, fmt.Errorf("unexpected argument %q", fs.Arg(0)))
	}

	errs = append(errs, o.checkModels()...)
	errs = append(errs, o.link.check()...)

	if o.drainDelay < 0 {
		o.drainDelay = 60 * time.Second
		if o.parentFD >= 0 {
			o.drainDelay = 2 * time.Second
		}
	}

	if o.grace < o.drainDelay {
		errs = append(errs, fmt.Errorf("--grace %v is shorter than --drain-delay %v", o.grace, o.drainDelay))
	}

	if o.cacheBytes <= 0 {
		errs = append(errs, errors.New("--cache-bytes must be positive"))
	}

	if o.maxBody <= 0 {
		errs = append(errs, errors.New("--max-body must be positive"))
	}

	return errors.Join(errs...)
}

// checkModels checks what is to be served.
func (o *options) checkModels() (errs []error) {
	if o.repository != "" {
		o.version = ""

		if o.pkg != "" || o.treeSHA256 != "" {
			errs = append(errs, errors.New("--repository does not go with --package or --tree-sha256"))
		}

		return errs
	}

	if o.pkg == "" {
		errs = append(errs, errors.New("--package is required"))
	}

	if o.model == "" {
		errs = append(errs, errors.New("--model is required"))
	}

	return errs
}

package launch

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sluice-gateway/sluice/internal/direct"
)

// superviseOptions are the flags of Supervise.
type superviseOptions struct {
	parent    int
	relay     int
	target    string
	allow     string
	keySHA256 string
	tls       direct.Files
	user      string // to run the command as; empty: ourselves
	cpus      string // to keep the command on; empty: all
	dataLimit int64  // what the instance may use; 0: no limit

	orphan time.Duration // for how long the engine may live without anybody who looks after it
	grace  time.Duration // that it has to end then
	log    string        // file for what it prints, if orphan is set; empty: none
	logMax int64         // bounds the file
}

const superviseUsage = "usage: supervise --parent-fd N [--relay-fd N --target URL …] -- COMMAND [ARG…]"

func superviseArgs(args []string) (o superviseOptions, command []string, err error) {
	fs := flag.NewFlagSet("supervise", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.IntVar(&o.parent, "parent-fd", -1, "")
	fs.IntVar(&o.relay, "relay-fd", -1, "")
	fs.StringVar(&o.target, "target", "", "")
	fs.StringVar(&o.allow, "allow", "", "")
	fs.StringVar(&o.keySHA256, "key-sha256", "", "")
	fs.StringVar(&o.tls.Cert, "cert", "", "")
	fs.StringVar(&o.tls.Key, "cert-key", "", "")
	fs.StringVar(&o.tls.ClientCA, "client-ca", "", "")
	fs.StringVar(&o.user, "user", "", "")
	fs.StringVar(&o.cpus, "cpus", "", "")
	fs.Int64Var(&o.dataLimit, "data-limit", 0, "")
	fs.DurationVar(&o.orphan, "orphan", 0, "")
	fs.DurationVar(&o.grace, "grace", 0, "")
	fs.StringVar(&o.log, "log", "", "")
	fs.Int64Var(&o.logMax, "log-max", 0, "")

	own := args
	for i, a := range args {
		if a == "--" {
			own, command = args[:i], args[i+1:]

			break
		}
	}

	if err := fs.Parse(own); err != nil {
		return o, nil, fmt.Errorf("%w\n%s", err, superviseUsage)
	}

	if o.parent <= 2 || len(command) == 0 || fs.NArg() > 0 {
		return o, nil, errors.New(superviseUsage)
	}

	return o, command, nil
}

// relay is the door past the gateway of a custom engine, in the process that supervises it.
type relay struct {
	server   *http.Server
	draining atomic.Bool
}

// openRelay serves the listener that was handed down; nil if there is none.
func (o *superviseOptions) openRelay(log *slog.Logger) (*relay, error) {
	if o.relay < 0 {
		return nil, nil //nolint:nilnil // no door is a choice
	}

	syscall.CloseOnExec(o.relay)

	f := os.NewFile(uintptr(o.relay), "direct")

	ln, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("direct door: %w", err)
	}

	_ = f.Close() // the listener has its own

	target, err := url.Parse(o.target)
	if err != nil || target.Host == "" {
		return nil, fmt.Errorf("direct door: --target %q is not an address", o.target)
	}

	guard, err := direct.New(direct.SplitList(o.allow), o.keySHA256)
	if err != nil {
		return nil, fmt.Errorf("direct door: %w", err)
	}

	conf, err := o.tls.Config("http/1.1")
	if err != nil {
		return nil, fmt.Errorf("direct door: %w", err)
	}

	ln = guard.Listener(ln)
	if conf != nil {
		ln = tls.NewListener(ln, conf)
	}

	r := &relay{}
	r.server = &http.Server{
		Handler: r.handler(target, guard), ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 200 * time.Second,
		MaxHeaderBytes: 160 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}

	go func() {
		if err := r.server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			log.Error("the direct door is closed", slog.Any("error", err))
		}
	}()

	return r, nil
}

// handler passes everything on as it comes, answers flush by flush.
func (r *relay) handler(target *url.URL, guard *direct.Guard) http.Handler {
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(target)
			p.Out.Host = p.In.Host
			p.Out.Header.Del(direct.KeyHeader)
			p.SetXForwarded()
		},
		Transport: &http.Transport{
			TLSClientConfig:     &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // our own child on loopback
			MaxIdleConnsPerHost: 256, IdleConnTimeout: time.Minute, DisableCompression: true,
			DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
		},
		FlushInterval: -1,
		ErrorHandler: func(w http.ResponseWriter, req *http.Request, err error) {
			if errors.Is(err, context.Canceled) {
				return // nobody reads an answer
			}

			refuse(w, req, http.StatusBadGateway, "APIG.0201", "Backend unavailable.")
		},
	}

	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !guard.Key([]byte(req.Header.Get(direct.KeyHeader))) {
			refuse(w, req, http.StatusUnauthorized, "APIG.0301", "The direct channel wants the key of the service in "+direct.KeyHeader+".")

			return
		}

		if r.draining.Load() {
			w.Header().Set("Connection", "close")
		}

		proxy.ServeHTTP(w, req)
	})
}

func refuse(w http.ResponseWriter, _ *http.Request, status int, code, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"error_code":%q,"error_msg":%q}`, code, text) //nolint:errcheck // nobody to tell
}

// drain asks callers to go elsewhere.
func (r *relay) drain() {
	if r != nil {
		r.draining.Store(true)
	}
}

// close ends the door at once; the engine is gone.
func (r *relay) close() {
	if r != nil {
		_ = r.server.Close()
	}
}

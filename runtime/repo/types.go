package repo

import (
	"time"

	"github.com/sluice-gateway/sluice/runtime/batch"
	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/spec"
)

// State is where a version is in its life.
type State string

// The states, in order.
const (
	Queued    State = "queued"
	Fetching  State = "fetching"
	Verifying State = "verifying"
	Loading   State = "loading"
	Warming   State = "warming"
	Ready     State = "ready"
	Draining  State = "draining"
	Unloaded  State = "unloaded"
	Failed    State = "failed"
)

// Source is a package to serve under a name and a version.
type Source struct {
	Name    string
	Version string
	// Dir holds the package, or, when it does not contain one, a directory that a Fetcher fills.
	Dir string
	// TreeSHA256, when set, is what the files must hash to (spec.PackageRef).
	TreeSHA256 string
	// Files, when set, are checked one by one.
	Files []spec.FileDigest
}

// Status is one line of the index.
type Status struct {
	Name    string
	Version string
	State   State
	// Reason of a failure; for a ready version, the reason of the last failed reload.
	Reason string
	Since  time.Time
}

// Meta describes a loaded version. It is immutable.
type Meta struct {
	Name, Version   string
	Inputs, Outputs []engine.Info
	// Batchable models take Rows in the first dimension of every input and output.
	Batchable    bool
	MaxBatchSize int
	Config       spec.PackageConfig
	Labels       []string
	Dir          string
	Platform     string
	// File of the model in Dir.
	File     string
	Provider string
	// GPUs are the devices that the model computes on; none means the processor.
	GPUs []int
	// Executors run batches side by side.
	Executors int
	// LoadedAt is when it became ready.
	LoadedAt time.Time
}

// Hooks report what happens to models; any may be nil.
type Hooks struct {
	// State is called on every change of state, in order.
	State func(s Status)
	// Loaded tells how long a successful load took.
	Loaded func(name, version string, d time.Duration)
	// Forgotten is called when an unloaded version leaves the index.
	Forgotten func(name, version string)
	// Batch gives the batcher's hooks of one version.
	Batch func(name, version string) batch.Hooks
}

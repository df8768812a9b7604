package batch

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Config of a Batcher.
type Config struct {
	// Name of the model, for texts.
	Name string
	// MaxBatchSize in rows; 1 or less means that every request runs alone.
	MaxBatchSize int
	// Alone runs every request by itself, though requests of several rows are welcome.
	Alone bool
	// Executors run batches side by side; 0 means 1.
	Executors int
	// PreferredBatchSizes in rows, ascending.
	PreferredBatchSizes []int
	// MaxQueueDelay that a request may wait for company while an executor is free.
	MaxQueueDelay time.Duration
	// MaxQueueRows bounds what waits; 0 means 16 batches, and at least 64 requests.
	MaxQueueRows int
	// PriorityLevels; 0 or 1 means no priorities. DefaultPriority 0 means the lowest but
	// half the levels.
	PriorityLevels  int
	DefaultPriority int
	// StrictPriority always serves the highest level first; otherwise each level gets twice
	// the share of the next.
	StrictPriority bool
	// DefaultTimeout in the queue; 0 means none.
	DefaultTimeout time.Duration
	// PadToBuckets runs batches at bounded sizes only.
	PadToBuckets bool
}

// maxLevels bounds the priority levels.
const maxLevels = 64

func (c Config) withDefaults() (Config, error) {
	c.MaxBatchSize = max(1, c.MaxBatchSize)
	c.Executors = max(1, c.Executors)
	c.PriorityLevels = max(1, c.PriorityLevels)

	if c.DefaultPriority == 0 {
		c.DefaultPriority = (c.PriorityLevels + 1) / 2
	}

	if c.MaxQueueRows == 0 {
		c.MaxQueueRows = max(64, 16*c.MaxBatchSize)
	}

	var errs []error

	if c.PriorityLevels > maxLevels {
		errs = append(errs, fmt.Errorf("priority_levels %d is over %d", c.PriorityLevels, maxLevels))
	}

	if c.DefaultPriority < 1 || c.DefaultPriority > c.PriorityLevels {
		errs = append(errs, fmt.Errorf("default_priority %d is not one of the %d levels", c.DefaultPriority, c.PriorityLevels))
	}

	if c.MaxQueueRows < c.MaxBatchSize {
		errs = append(errs, fmt.Errorf("max_queue_rows %d is less than one batch of %d", c.MaxQueueRows, c.MaxBatchSize))
	}

	if c.MaxQueueDelay < 0 || c.DefaultTimeout < 0 {
		errs = append(errs, errors.New("a delay or timeout is negative"))
	}

	if !slices.IsSorted(c.PreferredBatchSizes) {
		errs = append(errs, errors.New("preferred_batch_sizes are not ascending"))
	}

	for _, s := range c.PreferredBatchSizes {
		if s < 1 || s > c.MaxBatchSize {
			errs = append(errs, fmt.Errorf("preferred batch size %d is not within 1 to %d", s, c.MaxBatchSize))
		}
	}

	return c, errors.Join(errs...)
}

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"
)

// profile drives the candidate once more and keeps what the gateway's CPU did meanwhile.
func (g *gateway) profile(ctx context.Context, o *options, c *candidate, lua string) error {
	fetched := make(chan error, 1)

	go func() { fetched <- g.fetchProfile(ctx, o.profile, o.length) }()

	_, err := drive(ctx, lua, c.url, o.conns, o.length+time.Second)
	if ferr := <-fetched; ferr != nil {
		return ferr
	}

	return err
}

func (g *gateway) fetchProfile(ctx context.Context, name string, length time.Duration) error {
	url := g.ops + "/debug/pprof/profile?seconds=" + strconv.Itoa(max(1, int(length.Seconds())))

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}

	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read

	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}

	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("profile: %s: %.200s", resp.Status, data)
	}

	if err := os.WriteFile(name, data, 0o600); err != nil {
		return fmt.Errorf("profile: %w", err)
	}

	return nil
}

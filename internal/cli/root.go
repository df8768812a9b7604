package cli

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
)

// Commands returns the client verbs, to be added to the root command.
func Commands() []*cobra.Command {
	list := []*cobra.Command{modelCommand(), serviceCommand(), tokenCommand(), keyCommand(), userCommand(), appCommand(), signCommand()}

	return list
}

// base holds what every verb shares.
type base struct {
	conn   connection
	output string
}

// flags adds the shared flags to a group of verbs. Environment variables give defaults.
func (b *base) flags(cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	f.StringVar(&b.conn.data, "data", env("SLUICE_DATA", "data"), "data directory of a local sluice, for addresses and credentials")
	f.StringVar(&b.conn.control, "control", os.Getenv("SLUICE_CONTROL"), "base URL of the control API (default: from the data directory)")
	f.StringVar(&b.conn.edge, "edge", os.Getenv("SLUICE_EDGE"), "base URL of the edge (default: from the data directory)")
	f.StringVar(&b.conn.project, "project", os.Getenv("SLUICE_PROJECT"), "project id (default: from the data directory)")
	f.StringVar(&b.conn.token, "token", "", "token to use (default: $SLUICE_TOKEN, else one is fetched)")
	f.StringVar(&b.conn.user, "user", os.Getenv("SLUICE_USER"), "user name to fetch a token with; the password comes from $SLUICE_PASSWORD")
	f.StringVar(&b.conn.domain, "domain", os.Getenv("SLUICE_DOMAIN"), "domain of the user")
	f.StringVar(&b.conn.caFile, "ca-cert", "", "PEM file with certificates to trust")
	f.BoolVar(&b.conn.insecure, "insecure", false, "accept any certificate")
	f.DurationVar(&b.conn.timeout, "timeout", time.Minute, "time-out of one call")
	f.StringVarP(&b.output, "output", "o", "table", "output format: table, json or yaml")

	must(cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp)))

	cmd.PersistentPreRunE = func(*cobra.Command, []string) error {
		if b.output != "table" && b.output != "json" && b.output != "yaml" {
			return fmt.Errorf("--output %s: want table, json or yaml", b.output)
		}

		b.conn.token = firstOf(b.conn.token, os.Getenv("SLUICE_TOKEN"))
		b.conn.password = os.Getenv("SLUICE_PASSWORD")

		return b.conn.prepare()
	}
}

func env(name, fallback string) string { return firstOf(os.Getenv(name), fallback) }

// must is for registrations that can only fail by a mistake in this package.
func must(err error) {
	if err != nil {
		panic("BUG: " + err.Error())
	}
}

func readCertPool(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--ca-cert: %w", err)
	}

	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("--ca-cert " + path + ": no certificate in it")
	}

	return pool, nil
}

package cli

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/spec"
)

// Options tell where and as whom to call. What is empty comes from the environment or from the data
// directory of a local sluice, as for the client verbs.
type Options struct {
	Data, Control, Edge, Project, Token, User, Domain, CAFile string
	Insecure                                                  bool
}

// Platform is a connection for commands outside of this package. It is safe for concurrent use once made.
type Platform struct{ conn connection }

// Connect reads what a connection needs. It does not call anybody.
func Connect(o Options) (*Platform, error) {
	p := &Platform{conn: connection{
		data: firstOf(o.Data, env("SLUICE_DATA", "data")), control: firstOf(o.Control, os.Getenv("SLUICE_CONTROL")),
		edge: firstOf(o.Edge, os.Getenv("SLUICE_EDGE")), project: firstOf(o.Project, os.Getenv("SLUICE_PROJECT")),
		token: firstOf(o.Token, os.Getenv("SLUICE_TOKEN")), user: firstOf(o.User, os.Getenv("SLUICE_USER")),
		domain: firstOf(o.Domain, os.Getenv("SLUICE_DOMAIN")), password: os.Getenv("SLUICE_PASSWORD"),
		caFile: o.CAFile, insecure: o.Insecure, timeout: 30 * time.Second,
	}}

	return p, p.conn.prepare()
}

// Edge is the base URL of the edge, "" if it is not known.
func (p *Platform) Edge() string { return p.conn.edge }

// Token returns a token of the project. It fetches one if none was given.
func (p *Platform) Token(ctx context.Context) (string, error) {
	err := p.conn.authenticate(ctx)

	return p.conn.token, err
}

// ServiceID finds a service by its name or its id.
func (p *Platform) ServiceID(ctx context.Context, ref string) (string, error) {
	b := &base{conn: p.conn}

	id, err := b.serviceID(ctx, ref)
	p.conn = b.conn // it may have fetched a token

	if err != nil {
		return "", err
	}

	if _, err := b.service(ctx, id); err != nil {
		return "", fmt.Errorf("service %s: %w", ref, err)
	}

	return id, nil
}

// Endpoints lists the base URLs of the ready instances of a service.
func (p *Platform) Endpoints(ctx context.Context, id string) ([]string, error) {
	var answer struct {
		Endpoints []struct {
			Scheme string `json:"schema"`
			IP     string `json:"ip"`
			Port   int    `json:"port"`
		} `json:"endpoints"`
	}

	if err := p.conn.api(ctx, http.MethodGet, "/services/"+url.PathEscape(id)+"/predict/endpoints", nil, &answer); err != nil {
		return nil, err
	}

	list := make([]string, 0, len(answer.Endpoints))
	for _, e := range answer.Endpoints {
		list = append(list, strings.ToLower(firstOf(e.Scheme, "http"))+"://"+net.JoinHostPort(e.IP, strconv.Itoa(e.Port)))
	}

	return list, nil
}

// AccessKey returns the access key of the environment, or else the first one of a local sluice.
func (p *Platform) AccessKey() (string, spec.Secret, error) {
	if key := os.Getenv("SLUICE_ACCESS_KEY"); key != "" {
		return key, spec.NewSecret(os.Getenv("SLUICE_SECRET_KEY")), nil
	}

	return BootstrapKey(p.conn.data)
}

// BootstrapKey reads the first access key of a local sluice from its data directory.
func BootstrapKey(data string) (string, spec.Secret, error) {
	var boot struct {
		AccessKey string `json:"access_key"`
		SecretKey string `json:"secret_key"`
	}

	if err := readJSONFile(filepath.Join(data, "bootstrap.json"), &boot); err != nil {
		return "", spec.Secret{}, fmt.Errorf("no access key: set $SLUICE_ACCESS_KEY and $SLUICE_SECRET_KEY, or give --data DIR of a local sluice (%w)", err)
	}

	return boot.AccessKey, spec.NewSecret(boot.SecretKey), nil
}

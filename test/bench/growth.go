package main

import (
	"context"
	"fmt"

	"github.com/sluice-gateway/sluice/loadtest/request"
)

// services adds services and looks whether the others get slower or the process larger.
func (b *bench) services() error {
	s, id, err := b.fresh("services")
	if err != nil {
		return err
	}
	defer s.close()

	const more = 50

	body := []byte(`{}`)
	t := target{name: "with few services", url: s.edge + "/v1/infers/" + id, body: body, server: s.process}

	before, err := b.turns(t)
	if err != nil {
		return err
	}

	size, err := s.live(b.ctx)
	if err != nil {
		return err
	}

	for i := range more {
		if _, err := s.service(b.ctx, fmt.Sprintf("more-%d", i), "echo"); err != nil {
			return err
		}
	}

	now, err := s.live(b.ctx)
	if err != nil {
		return err
	}

	grown := now - size
	t.name = fmt.Sprintf("with %d more", more)

	after, err := b.turns(t)
	if err != nil {
		return err
	}

	b.comparison(append(before, after...))
	b.report.text("Heap and stacks grew by %.0f KiB for each service (external engine, no worker), what etcd took meanwhile included.", float64(grown)/more/1024)

	return nil
}

// keys adds users with access keys, and app codes, and looks whether authenticating gets slower or the process larger.
func (b *bench) keys() error {
	s, _, err := b.fresh("keys")
	if err != nil {
		return err
	}
	defer s.close()

	closed, err := s.service(b.ctx, "echo-closed", "echo", "AKSK", "APP")
	if err != nil {
		return err
	}

	code, err := s.appCode(b.ctx, "first", closed)
	if err != nil {
		return err
	}

	signer, err := s.signer()
	if err != nil {
		return err
	}

	const more = 40 // users

	targets := func(when string) []target {
		return []target{
			{name: "app code, " + when, url: s.secure + "/v1/infers/" + closed, body: []byte(`{}`), server: s.process, fields: []request.Field{field("X-Apig-AppCode", code)}},
			{name: "AK/SK, " + when, url: s.edge + "/v1/infers/" + closed, body: []byte(`{}`), server: s.process, item: func(i *request.Item) { i.Signer = signer }},
		}
	}

	before, err := b.turns(targets("few")...)
	if err != nil {
		return err
	}

	size, err := s.live(b.ctx)
	if err != nil {
		return err
	}

	if err := s.addKeys(b.ctx, more, closed); err != nil {
		return err
	}

	now, err := s.live(b.ctx)
	if err != nil {
		return err
	}

	after, err := b.turns(targets("many")...)
	if err != nil {
		return err
	}

	b.comparison([]measured{before[0], after[0]})
	b.comparison([]measured{before[1], after[1]})
	b.report.text("\"Many\" is %d more users with an access key each, and %d more app codes (a user may have %d apps, an app %d codes); "+
		"heap and stacks grew by %.0f KiB for each user, what etcd took meanwhile included.", more, apps*codes, apps+1, codes, float64(now-size)/more/1024)

	return nil
}

// What one user may have beside the app that exists already.
const (
	apps  = 4
	codes = 5
)

func (s *system) addKeys(ctx context.Context, users int, service string) error {
	for i := range users {
		name := fmt.Sprintf("user-%d", i)

		if _, err := s.run(ctx, "user", "create", name); err != nil {
			return err
		}

		if _, err := s.run(ctx, "key", "create", "--for", name); err != nil {
			return err
		}
	}

	for i := range apps {
		name := fmt.Sprintf("more-%d", i)

		if _, err := s.appCode(ctx, name, service); err != nil {
			return err
		}

		for range codes - 1 {
			if _, err := s.run(ctx, "app", "code", name); err != nil {
				return err
			}
		}
	}

	return nil
}

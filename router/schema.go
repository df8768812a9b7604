package router

import (
	"strings"

	"github.com/sluice-gateway/sluice/internal/apischema"
	"github.com/sluice-gateway/sluice/spec"
)

// compileSchemas prepares the schemas of requests, if the package wants them to be checked. One that cannot be
// compiled was refused when the package was registered; here it would be left out.
func (v *Version) compileSchemas(in *spec.Version) {
	if !in.SchemaCheck {
		return
	}

	for i := range in.APIs {
		declared := &in.APIs[i]

		// Their parameters stand in the query.
		if m := methodOf(declared); m == "GET" || m == "HEAD" || m == "OPTIONS" {
			continue
		}

		schema, err := apischema.Of(declared)
		if err != nil || schema == nil {
			continue
		}

		path := declared.URL
		if path == "" {
			path = "/"
		}

		for j := range v.apis {
			if a := &v.apis[j]; a.source() == path {
				if a.schemas == nil {
					a.schemas = map[string]*apischema.Schema{}
				}

				a.schemas[methodOf(declared)] = schema
				v.checks = true
			}
		}
	}
}

func methodOf(d *spec.API) string {
	if d.Method == "" {
		return "POST"
	}

	return strings.ToUpper(d.Method)
}

// Schema is what the body of a request has to fit; nil if there is nothing to check.
func (v *Version) Schema(method, path []byte) *apischema.Schema {
	if !v.checks {
		return nil
	}

	// The first declaration that allows the request is the one that counts.
	for i := range v.apis {
		if a := &v.apis[i]; a.takes(method) && a.matches(path) {
			return a.schemas[string(method)]
		}
	}

	return nil
}

package spec_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/sluice-gateway/sluice/spec"
)

// TestSchemaAgreesWithTheParser holds configs/schema/serving.v1.json to what
// ParsePackageConfig does: both accept and refuse the same blocks, except for the rules
// that JSON Schema cannot express.
func TestSchemaAgreesWithTheParser(t *testing.T) {
	t.Parallel()

	schema, err := jsonschema.NewCompiler().Compile("../configs/schema/serving.v1.json")
	if err != nil {
		t.Fatal(err)
	}

	for _, c := range servingCases(t) {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()

			block, err := jsonschema.UnmarshalJSON(bytes.NewReader(c.Serving))
			if err != nil {
				t.Fatal(err)
			}

			err = schema.Validate(block)
			if accept := c.Path == "" || c.BeyondSchema; accept != (err == nil) {
				t.Errorf("schema says %v, the parser's mistake is at %q", err, c.Path)
			}
		})
	}
}

// TestPackagesOfTheRepositoryAreRight reads every config.json under configs.
func TestPackagesOfTheRepositoryAreRight(t *testing.T) {
	t.Parallel()

	files, err := filepath.Glob("../configs/models/*/config.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("found %v, %v", files, err)
	}

	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}

		if _, err := spec.ParsePackageConfig(data); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/fault"
)

// errorRow is how docs/api/errors.md tells a code.
func errorRow(c fault.Code) string {
	return fmt.Sprintf("| %d | `%s` | %s |", c.Status(), c.Wire(), strings.ReplaceAll(c.Text(), "|", `\|`))
}

// TestWriteErrorRows rewrites the table of docs/api/errors.md when SLUICE_WRITE_DOCS is set.
func TestWriteErrorRows(t *testing.T) { //nolint:paralleltest // writes what another test reads
	if os.Getenv("SLUICE_WRITE_DOCS") == "" {
		t.Skip("SLUICE_WRITE_DOCS is not set: the page is checked, not written")
	}

	codes := make([]fault.Code, fault.Count())
	for i := range codes {
		codes[i] = fault.Code(i)
	}

	slices.SortStableFunc(codes, func(a, b fault.Code) int { return a.Status() - b.Status() })

	const file, head = "../../docs/api/errors.md", "| status | code | text |\n|---|---|---|\n"

	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}

	before, rest, ok := strings.Cut(string(page), head)
	if !ok {
		t.Fatal("the page has no table")
	}

	_, after, _ := strings.Cut("\n"+rest, "\n\n")

	rows := make([]string, len(codes))
	for i, c := range codes {
		rows[i] = errorRow(c)
	}

	if err := os.WriteFile(file, []byte(before+head+strings.Join(rows, "\n")+"\n\n"+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

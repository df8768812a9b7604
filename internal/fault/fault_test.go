package fault_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/fault"
)

func TestEveryCodeHasStatusWireAndText(t *testing.T) {
	t.Parallel()

	for c := range fault.Count() {
		code := fault.Code(c)
		if code.Status() < 400 || code.Status() > 599 || !strings.Contains(code.Wire(), ".") || code.Text() == "" {
			t.Errorf("code %d: status %d, wire %q, text %q", c, code.Status(), code.Wire(), code.Text())
		}
	}
}

func TestFromHidesUnclassifiedText(t *testing.T) {
	t.Parallel()

	f := fault.From(errors.New("password=hunter2"))
	if f.Code != fault.Internal || strings.Contains(f.Message(), "hunter2") {
		t.Fatalf("got %v with message %q", f.Code, f.Message())
	}

	if fault.From(nil) != nil {
		t.Fatal("nil error gave a fault")
	}
}

func TestFromFindsWrappedFault(t *testing.T) {
	t.Parallel()

	err := fmt.Errorf("outer: %w", fault.New(fault.BadJSON, "field %q", "x").After(time.Second))

	f := fault.From(err)
	if f.Code != fault.BadJSON || f.Message() != `field "x"` || f.RetryAfter != time.Second {
		t.Fatalf("got %+v", f)
	}

	if !errors.Is(err, &fault.Error{Code: fault.BadJSON}) || errors.Is(err, &fault.Error{Code: fault.BadImage}) {
		t.Fatal("errors.Is does not compare codes")
	}
}

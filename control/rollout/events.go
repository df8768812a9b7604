package rollout

import (
	"fmt"

	"github.com/sluice-gateway/sluice/spec"
)

// Types of events of the v1 API.
const (
	normal   = "normal"
	abnormal = "abnormal"
)

func (s *step) event(kind, format string, args ...any) {
	s.result.Events = append(s.result.Events, spec.Event{
		ServiceID: s.Service.ID, Type: kind, Info: fmt.Sprintf(format, args...), OccurredAt: s.now,
	})
}

// title names the version of an instance the way events of the v1 API do.
func title(inst *spec.Instance) string {
	return "[" + inst.ModelName + " " + inst.ModelVersion + "]"
}

func entryTitle(e *spec.Entry) string { return "[" + e.ModelName + " " + e.ModelVersion + "]" }

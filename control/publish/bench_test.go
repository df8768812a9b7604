package publish_test

import (
	"fmt"
	"testing"

	"github.com/sluice-gateway/sluice/control/publish"
	"github.com/sluice-gateway/sluice/control/rollout"
	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/control/store/storetest"
	"github.com/sluice-gateway/sluice/spec"
)

// BenchmarkInstanceChangesAmong10000Services measures from the write of an instance to the snapshot
// that tells it, etcd and the window of 2 ms included.
func BenchmarkInstanceChangesAmong10000Services(b *testing.B) {
	const (
		services = 10_000
		batch    = 500
	)

	st := storetest.New(b)

	for i := 0; i < services; i += batch {
		ops := make([]store.Op, 0, batch)
		for j := i; j < i+batch; j++ {
			id := fmt.Sprintf("s%05d", j)
			ops = append(ops, st.Services.PutOp(id, spec.Service{
				ID: id, Entries: []spec.Entry{{ModelID: "m", Weight: 100, InstanceCount: 4}},
			}))
		}

		_, err := st.Commit(b.Context(), ops...)
		must(b, err)
	}

	p := publish.New(publish.Config{}, st, storetest.Logger())
	run(b, p)

	snap := await(b, p, 0, "first", func(s *spec.Snapshot) bool { return len(s.Services) == services })
	template := rollout.Template(&spec.Entry{ModelID: "m"})

	b.ReportAllocs()

	for n := 0; b.Loop(); n++ {
		service := fmt.Sprintf("s%05d", n%services)
		must(b, st.Instances.Put(b.Context(), service+"/i", spec.Instance{
			ID: "i", ServiceID: service, ModelID: "m", Template: template, Address: "a", State: spec.InstanceReady, PID: n + 1,
		}))

		snap = await(b, p, snap.Revision, "change", func(s *spec.Snapshot) bool {
			v := s.Services[n%services].Versions[0]

			return len(v.Instances) == 1 && v.Instances[0].PID == n+1
		})
	}
}

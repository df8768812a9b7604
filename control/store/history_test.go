package store_test

import (
	"testing"

	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/control/store/storetest"
	"github.com/sluice-gateway/sluice/spec"
)

func TestHistoryThatContinues(t *testing.T) {
	t.Parallel()

	was := store.History{Cluster: 1, Revision: 100, Began: 3, Instances: 2}

	for name, tc := range map[string]struct {
		now  store.History
		want bool
	}{
		"nothing happened":          {was, true},
		"more was written":          {store.History{Cluster: 1, Revision: 120, Began: 3, Instances: 0}, true},
		"an older snapshot":         {store.History{Cluster: 1, Revision: 90, Began: 3, Instances: 2}, false},
		"another cluster":           {store.History{Cluster: 2, Revision: 120, Began: 3, Instances: 2}, false},
		"restored, and used since":  {store.History{Cluster: 1, Revision: 120, Began: 5, Instances: 2}, false},
		"empty, and used for other": {store.History{Cluster: 1, Revision: 120}, false},
	} {
		if got := tc.now.Continues(was); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestHistoryOfAState(t *testing.T) {
	t.Parallel()

	st := storetest.New(t)

	h, err := st.History(t.Context())
	if err != nil || h.Began != 0 || h.Instances != 0 || h.Restoring {
		t.Fatalf("%+v, %v", h, err)
	}

	if err := st.Users.Create(t.Context(), "u", spec.User{}); err != nil {
		t.Fatal(err)
	}

	if err := st.Instances.Create(t.Context(), "s/i", spec.Instance{}); err != nil {
		t.Fatal(err)
	}

	later, err := st.History(t.Context())
	if err != nil || later.Began == 0 || later.Instances != 1 || later.Revision <= h.Revision {
		t.Fatalf("%+v, %v", later, err)
	}
}

package auth

import (
	"strconv"
	"strings"
	"testing"
)

func TestKeyTableFindsWhatAMapFinds(t *testing.T) {
	t.Parallel()

	for _, n := range []int{0, 1, 2, 3, 100, 5000} {
		entries, names := make([]accessKey, n), make([]string, n)
		want := make(map[string]*accessKey, n)

		for i := range n {
			// Of all lengths around the one that fits, each name beginning like others; some
			// twice, some left out.
			name := strings.Repeat("A", i%40) + strconv.Itoa(i/2)
			if i%7 == 3 {
				continue
			}

			names[i] = name
			want[name] = &entries[i]
		}

		table := newKeyTable(entries, names)

		for name, e := range want {
			if got := table.find([]byte(name)); got != e {
				t.Fatalf("%d keys: %q gives another entry (%p, want %p)", n, name, got, e)
			}

			for _, other := range []string{name + "x", name[1:], "x" + name, name + "\x00", strings.ToLower(name)} {
				if want[other] == nil && table.find([]byte(other)) != nil {
					t.Fatalf("%d keys: %q is found", n, other)
				}
			}
		}

		if table.find(nil) != nil {
			t.Errorf("%d keys: a key without a name is found", n)
		}
	}

	if (*keyTable)(nil).find([]byte("A")) != nil {
		t.Error("no table finds something")
	}
}

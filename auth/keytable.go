package auth

import (
	"hash/maphash"
	"math/bits"
)

// keyTable finds access keys. With 100,000 of them, and another one for each request, every jump to
// a place in memory that no cache holds costs as much as a block of SHA-256. A map takes four:
// to its group, its slot, the name, and the entry. Here the slots are 8 bytes each and half empty,
// so that those of 100,000 keys stay in a processor's own cache, and a name of usual length lies
// in its entry. It is immutable once built.
type keyTable struct {
	seed    maphash.Seed
	slots   []uint64 // upper half of the hash, and the index of the entry plus one; 0 is empty
	entries []accessKey
}

// inline is the length of a name that fits into its entry.
const inline = 22

// keyName is the name of an access key.
type keyName struct {
	short  [inline]byte
	length uint8  // of what is in short
	long   string // of a longer name
}

func newKeyName(name string) keyName {
	if len(name) > inline {
		return keyName{long: name}
	}

	n := keyName{length: uint8(len(name))}
	copy(n.short[:], name)

	return n
}

func (n *keyName) is(name []byte) bool {
	if n.long != "" {
		return n.long == string(name)
	}

	return string(n.short[:n.length]) == string(name)
}

// newKeyTable indexes those entries that have a name. Of two with the same one, the later counts.
func newKeyTable(entries []accessKey, names []string) *keyTable {
	t := &keyTable{seed: maphash.MakeSeed(), entries: entries, slots: make([]uint64, 2<<bits.Len(uint(len(entries))))}

	for i, name := range names {
		if name == "" {
			continue
		}

		entries[i].name = newKeyName(name)

		h := maphash.String(t.seed, name)
		slot, _ := t.slot(h, []byte(name))
		t.slots[slot] = h&^(1<<32-1) | uint64(i+1)
	}

	return t
}

// slot returns the slot of a name and its entry, or the slot that is free for it and nil.
func (t *keyTable) slot(h uint64, name []byte) (int, *accessKey) {
	mask := len(t.slots) - 1

	for i := int(h) & mask; ; i = (i + 1) & mask {
		s := t.slots[i]
		if s == 0 {
			return i, nil
		}

		if s>>32 == h>>32 {
			if e := &t.entries[uint32(s)-1]; e.name.is(name) {
				return i, e
			}
		}
	}
}

// find returns the entry of a name, nil if there is none.
func (t *keyTable) find(name []byte) *accessKey {
	if t == nil {
		return nil
	}

	_, e := t.slot(maphash.Bytes(t.seed, name), name)

	return e
}

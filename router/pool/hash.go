package pool

// The hashes are fixed, so that every gateway of a fleet sends a key to the same place.
const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

// Hash is a 64-bit hash of b with all bits mixed; it is never 0.
func Hash(b []byte) uint64 {
	h := uint64(fnvOffset)
	for _, c := range b {
		h = (h ^ uint64(c)) * fnvPrime
	}

	return Mix(h) | 1
}

// HashString is Hash of a string.
func HashString(s string) uint64 {
	h := uint64(fnvOffset)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * fnvPrime
	}

	return Mix(h) | 1
}

// Mix spreads every bit of h over the whole word.
func Mix(h uint64) uint64 {
	h ^= h >> 30
	h *= 0xbf58476d1ce4e5b9
	h ^= h >> 27
	h *= 0x94d049bb133111eb

	return h ^ h>>31
}

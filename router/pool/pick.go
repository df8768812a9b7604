package pool

import (
	"math/bits"
	"math/rand/v2"
	"slices"
)

// MaxTried is how many instances a request can exclude.
const MaxTried = 8

// Request is what a pick may depend on. It is reused for the attempts of one request.
type Request struct {
	// Key for ConsistentHash, SourceKey for SourceIP; 0 if there is none.
	Key, SourceKey uint64
	// Long: a connection that lasts is wanted, not one request. Such ones are spread by their number.
	Long bool

	tried  [MaxTried]*Endpoint
	nTried int
}

// Exclude keeps later picks of this request from e.
func (r *Request) Exclude(e *Endpoint) {
	if r.nTried < MaxTried {
		r.tried[r.nTried] = e
		r.nTried++
	}
}

func (r *Request) hasTried(e *Endpoint) bool {
	return slices.Contains(r.tried[:r.nTried], e)
}

type verdict uint8

const (
	none   verdict = iota // nobody is left
	busy                  // those that are left have no room
	picked                // the lease is filled
)

// try picks without waiting. Instances that are ejected or cut off are used only when
// nobody else is left.
func (p *Pool) try(r *Request, l *Lease) verdict {
	v := p.view.Load()
	if len(v.endpoints) == 0 {
		return none
	}

	now := p.now()
	sick := p.unhealthy(v, now)

	if v.near != nil && p.nearIsFine(v, now) {
		if got := p.tryList(v, v.near, r, l, pass{now: now, strict: true}); got == picked {
			return picked
		}
	}

	got := p.tryList(v, v.endpoints, r, l, pass{now: now, strict: !sick})
	if got == none && !sick {
		return p.tryList(v, v.endpoints, r, l, pass{now: now})
	}

	return got
}

// pass is one walk through a list.
type pass struct {
	now    int64
	strict bool // leave out what is ejected or cut off
}

// tryList chooses by the pool's picker; if the choice cannot be had it takes the next that can.
func (p *Pool) tryList(v *view, list []*Endpoint, r *Request, l *Lease, ps pass) verdict {
	for range 4 {
		e := p.choose(v, list, r, ps)
		if e == nil {
			break
		}

		if p.take(e, l, ps) {
			return picked
		}
	}
	// Nothing by choice, or others were faster: the first that can be had.
	found := none
	start := int(p.rotor.Add(1) % uint64(len(list)))

	for i := range list {
		e := list[(start+i)%len(list)]
		if !p.usable(e, r, ps) {
			continue
		}

		if p.take(e, l, ps) {
			return picked
		}

		found = busy
	}

	return found
}

// usable reports whether r may be sent to e at all, room or not.
func (p *Pool) usable(e *Endpoint, r *Request, ps pass) bool {
	return !e.draining.Load() && (!ps.strict || e.healthy(ps.now)) && !r.hasTried(e)
}

// hasRoom is usable, and with room.
func (p *Pool) hasRoom(e *Endpoint, r *Request, ps pass) bool {
	return e.inflight.Load() < int64(p.cfg.MaxInFlight) && p.usable(e, r, ps)
}

// take occupies a place at e.
func (p *Pool) take(e *Endpoint, l *Lease, ps pass) bool {
	if e.inflight.Add(1) > int64(p.cfg.MaxInFlight) {
		e.inflight.Add(-1)

		return false
	}

	var probe func(error)

	if ps.strict {
		done, ok := e.breaker.enter()
		if !ok {
			e.inflight.Add(-1)

			return false
		}

		probe = done
	}

	*l = Lease{pool: p, endpoint: e, began: ps.now, probe: probe}

	return true
}

// choose names the picker's candidate; nil if it finds none.
func (p *Pool) choose(v *view, list []*Endpoint, r *Request, ps pass) *Endpoint {
	if len(list) == 1 {
		if p.hasRoom(list[0], r, ps) {
			return list[0]
		}

		return nil
	}

	if r.Long && (v.picker == PowerOfTwo || v.picker == LeastRequest) {
		return p.fewest(list, r, ps)
	}

	switch v.picker {
	case LeastRequest:
		return p.least(list, r, ps)
	case RoundRobin:
		return p.next(v, list, r, ps)
	case ConsistentHash:
		if r.Key != 0 {
			return p.hashed(list, r, r.Key, ps)
		}
	case SourceIP:
		if r.SourceKey != 0 {
			return p.hashed(list, r, r.SourceKey, ps)
		}
	case PowerOfTwo, numPickers:
	}

	return p.powerOfTwo(list, r, ps)
}

// powerOfTwo takes the cheaper of two random instances.
func (p *Pool) powerOfTwo(list []*Endpoint, r *Request, ps pass) *Endpoint {
	slow := float64(p.cfg.SlowStart)

	for range 3 {
		x := rand.Uint64() //nolint:gosec // spreads load, guards nothing
		n := uint64(len(list))
		i, _ := bits.Mul64(x, n)
		j, _ := bits.Mul64(Mix(x), n-1)

		if j >= i {
			j++
		}

		a, b := list[i], list[j]
		aOpen, bOpen := p.hasRoom(a, r, ps), p.hasRoom(b, r, ps)

		switch {
		case aOpen && bOpen:
			if b.cost(ps.now, slow) < a.cost(ps.now, slow) {
				return b
			}

			return a
		case aOpen:
			return a
		case bOpen:
			return b
		}
	}

	return nil
}

// least takes the instance with the fewest requests in flight for its share.
func (p *Pool) least(list []*Endpoint, r *Request, ps pass) *Endpoint {
	var (
		best  *Endpoint
		least float64
		slow  = float64(p.cfg.SlowStart)
		start = int(p.rotor.Add(1) % uint64(len(list)))
	)

	for i := range list {
		e := list[(start+i)%len(list)]
		if !p.hasRoom(e, r, ps) {
			continue
		}

		load := float64(e.inflight.Load()+1) / (e.weight * e.share(ps.now, slow))
		if best == nil || load < least {
			best, least = e, load
		}
	}

	return best
}

// fewest takes the instance with the fewest long connections for its weight. A new instance
// gets them at once: they are few and last, so that a slow start would leave it behind for hours.
func (p *Pool) fewest(list []*Endpoint, r *Request, ps pass) *Endpoint {
	var (
		best  *Endpoint
		least float64
		start = int(p.rotor.Add(1) % uint64(len(list)))
	)

	for i := range list {
		e := list[(start+i)%len(list)]
		if !p.hasRoom(e, r, ps) {
			continue
		}

		if load := float64(e.long.Load()+1) / e.weight; best == nil || load < least {
			best, least = e, load
		}
	}

	return best
}

// golden is 2^64 divided by the golden ratio: its multiples spread evenly over the word.
const golden = 0x9E3779B97F4A7C15

// next takes turns. With unequal weights, turns come evenly spread in their proportion.
func (p *Pool) next(v *view, list []*Endpoint, r *Request, ps pass) *Endpoint {
	slow := float64(p.cfg.SlowStart)

	for range 2 * len(list) {
		turn := p.rotor.Add(1)

		var e *Endpoint
		if v.equal {
			e = list[turn%uint64(len(list))]
		} else {
			e = byWeight(list, v.total, turn*golden)
		}

		if !p.hasRoom(e, r, ps) {
			continue
		}

		if share := e.share(ps.now, slow); share < 1 && rand.Float64() > share { //nolint:gosec // spreads load, guards nothing
			continue
		}

		return e
	}

	return nil
}

func byWeight(list []*Endpoint, total float64, x uint64) *Endpoint {
	at := float64(x>>11) / (1 << 53) * total
	for _, e := range list {
		if at -= e.weight; at < 0 {
			return e
		}
	}

	return list[len(list)-1]
}

// hashed takes the instance that ranks first for the key and is not loaded beyond the bound.
func (p *Pool) hashed(list []*Endpoint, r *Request, key uint64, ps pass) *Endpoint {
	var total, n int64

	for _, e := range list {
		if p.usable(e, r, ps) {
			total += e.inflight.Load()
			n++
		}
	}

	if n == 0 {
		return nil
	}

	bound := int64(p.cfg.BoundedLoad*float64(total+1)/float64(n)) + 1

	var (
		best  *Endpoint
		first uint64
	)

	for _, e := range list {
		if e.inflight.Load() >= bound || !p.hasRoom(e, r, ps) {
			continue
		}

		if rank := Mix(key ^ e.seed); best == nil || rank > first {
			best, first = e, rank
		}
	}

	return best
}

// nearIsFine reports whether the instances on this machine are not much more loaded than the others.
func (p *Pool) nearIsFine(v *view, now int64) bool {
	return load(v.near, now) <= p.cfg.SpillFactor*(load(v.far, now)+1)
}

// load is the mean number of requests in flight of the healthy ones; far beyond any bound if there is none.
func load(list []*Endpoint, now int64) float64 {
	var sum, n int64

	for _, e := range list {
		if !e.draining.Load() && e.healthy(now) {
			sum += e.inflight.Load()
			n++
		}
	}

	if n == 0 {
		return 1e9
	}

	return float64(sum) / float64(n)
}

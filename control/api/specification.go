package api

import (
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/control/web"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/spec"
)

// customSpec is the specification whose size the request states.
const customSpec = "custom"

// Specification is a size of instances.
type Specification struct {
	Specification string         `json:"specification"`
	BillingSpec   string         `json:"billing_spec"`
	Category      string         `json:"category"` // CPU | GPU | NPU
	CPUInfo       CPUInfo        `json:"cpu_info"`
	MemoryInfo    MemoryInfo     `json:"memory_info"`
	GPUInfo       map[string]any `json:"gpu_info"`
	NPUInfo       map[string]any `json:"npu_info"`
	DisplayEN     string         `json:"display_en"`
	DisplayCN     string         `json:"display_cn"`
	IsOpen        bool           `json:"is_open"`
	SpecStatus    string         `json:"spec_status"`
	IsFree        bool           `json:"is_free"`
	OverQuota     bool           `json:"over_quota"`
	ExtendParams  int            `json:"extend_params"`
}

// CPUInfo is the processor part of a Specification.
type CPUInfo struct {
	Arch string  `json:"arch"`
	CPU  float64 `json:"cpu"`
}

// MemoryInfo is the memory part of a Specification.
type MemoryInfo struct {
	Unit   string  `json:"unit"`
	Memory float64 `json:"memory"`
}

// DefaultSpecifications are the sizes of a platform that runs on one machine.
func DefaultSpecifications() []Specification {
	size := func(name, display string, cpu, memoryGB float64) Specification {
		return Specification{
			Specification: name, BillingSpec: name, Category: "CPU", CPUInfo: CPUInfo{Arch: "x86", CPU: cpu},
			MemoryInfo: MemoryInfo{Unit: "GB", Memory: memoryGB}, DisplayEN: display, DisplayCN: display,
			IsOpen: true, SpecStatus: "normal", IsFree: true, ExtendParams: 1,
		}
	}

	return []Specification{
		size("local.cpu", "This machine, CPU", 1, 2),
		size("modelarts.vm.cpu.2u", "CPU: 2 vCPUs, 8 GB", 2, 8),
		size("modelarts.vm.cpu.8u", "CPU: 8 vCPUs, 32 GB", 8, 32),
		size(customSpec, "Stated by the request (custom_spec)", 0, 0),
	}
}

func (a *API) specNames() []string {
	names := make([]string, 0, len(a.cfg.Specifications))
	for _, s := range a.cfg.Specifications {
		names = append(names, s.Specification)
	}

	return names
}

func (a *API) listSpecifications(r *web.Request) (any, error) {
	q := r.Query()
	page := q.Page()

	if err := q.Err(); err != nil {
		return nil, err
	}

	list := web.Cut(page, a.cfg.Specifications)

	return map[string]any{"total_count": len(a.cfg.Specifications), "count": len(list), "specifications": list}, nil
}

// size is the CPU and the memory in MB that one instance of an entry may have.
func (a *API) size(e *spec.Entry) (cpu, memory float64) {
	if e.CustomSpec != nil {
		return e.CustomSpec.CPU, float64(e.CustomSpec.Memory)
	}

	s := a.specs[e.Specification]

	return s.CPUInfo.CPU, s.MemoryInfo.Memory * 1024
}

// Limits of the look-up of endpoints, a minute.
const (
	callsPerDomain = 2000
	callsPerUser   = 20
	maxCallers     = 10_000
)

// callLimit counts calls a minute by domain and by user.
type callLimit struct {
	now func() time.Time

	mu     sync.Mutex // guards minute and counts
	minute int64
	counts map[string]int
}

func newCallLimit(now func() time.Time) *callLimit {
	return &callLimit{now: now, counts: make(map[string]int)}
}

func (l *callLimit) allow(p *auth.Principal) error {
	now := l.now()
	minute := now.Unix() / 60

	l.mu.Lock()
	defer l.mu.Unlock()

	if minute != l.minute || len(l.counts) > maxCallers {
		l.minute = minute
		clear(l.counts)
	}

	for key, most := range map[string]int{"domain:" + p.DomainID: callsPerDomain, p.Key: callsPerUser} {
		if l.counts[key] >= most {
			return fault.New(fault.TooManyRequests, "").After(time.Unix((minute+1)*60, 0).Sub(now))
		}
	}

	l.counts["domain:"+p.DomainID]++
	l.counts[p.Key]++

	return nil
}

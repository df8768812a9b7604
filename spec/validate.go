package spec

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of models and services, as the v1 API states them where it does.
const (
	MaxNameRunes        = 64
	MaxDescriptionRunes = 100
	MaxEntries          = 64
	MaxInstanceCount    = 128
	MaxTags             = 20
	MaxEnvs             = 256
	MaxGraceSeconds     = 300
	MaxDeploySeconds    = 2 * 60 * 60
)

// ValidateModelName accepts 1 to 64 letters, Chinese characters, digits, hyphens and underscores.
func ValidateModelName(name string) error { return validateName(name) }

// ValidateServiceName accepts 1 to 64 letters, Chinese characters, digits, hyphens and underscores.
func ValidateServiceName(name string) error { return validateName(name) }

func validateName(name string) error {
	if n := utf8.RuneCountInString(name); n < 1 || n > MaxNameRunes || !utf8.ValidString(name) {
		return fmt.Errorf("must have 1 to %d characters", MaxNameRunes)
	}

	for _, r := range name {
		if !isASCIIWord(r) && r != '-' && !unicode.Is(unicode.Han, r) {
			return fmt.Errorf("must hold only letters, Chinese characters, digits, - and _, has %q", r)
		}
	}

	return nil
}

// modelVersion is the v1 API's own pattern.
var modelVersion = regexp.MustCompile(`^(\d\.|[1-9]\d\.){2}(\d|[1-9]\d)$`)

// ValidateModelVersion accepts three numbers of one or two digits without leading zeros, such as 1.0.12.
func ValidateModelVersion(version string) error {
	if !modelVersion.MatchString(version) {
		return errors.New("must be three numbers from 0 to 99 without leading zeros, as in 1.0.0")
	}

	return nil
}

// ValidateDescription accepts what the v1 API does for a model: up to 100 characters without &!'"<>=.
func ValidateDescription(description string) error { return plainText(description, `&!'"<>=`) }

// ValidateServiceDescription accepts what the v1 API does for a service, which forbids + as well.
func ValidateServiceDescription(description string) error { return plainText(description, `&!'"<>=+`) }

func plainText(s, forbidden string) error {
	if !utf8.ValidString(s) {
		return errors.New("must be valid UTF-8")
	}

	if utf8.RuneCountInString(s) > MaxDescriptionRunes {
		return fmt.Errorf("must have at most %d characters", MaxDescriptionRunes)
	}

	if i := strings.IndexAny(s, forbidden); i >= 0 {
		return fmt.Errorf("must not contain any of %s, has %q", forbidden, s[i])
	}

	return nil
}

// Validate reports every mistake in the declaration of a service, as FieldErrors with the
// names of the v1 API ("config[0].weight"). It does not know which models exist.
func (s *Service) Validate() error {
	var m mistakes

	m.add("service_name", ValidateServiceName(s.Name))
	m.add("description", ValidateServiceDescription(s.Description))

	if s.Priority < 0 || s.Priority > 3 {
		m.addf("priority", "must be 1 to 3, got %d", s.Priority)
	}

	s.validateEntries(&m)
	validateTags(&m, s.Tags)
	validateSchedule(&m, s.Schedule)
	s.Policy.validate(&m, s.Entries)

	return m.err()
}

func (s *Service) validateEntries(m *mistakes) {
	realTime := false

	switch s.InferType {
	case "real-time":
		realTime = true
	case "batch", "edge":
	default:
		m.addf("infer_type", "must be real-time, batch or edge, got %q", shorten(s.InferType))
	}

	switch n := len(s.Entries); {
	case n == 0:
		m.addf("config", "must have at least one entry")
	case n > 1 && s.InferType == "batch":
		m.addf("config", "must have one entry for infer_type batch, has %d", n)
	case n > MaxEntries:
		m.addf("config", "must have at most %d entries, has %d", MaxEntries, n)

		return
	}

	sum := 0
	seen := make(map[string]int, len(s.Entries))

	for i := range s.Entries {
		e := &s.Entries[i]
		path := element("config", i)
		e.validate(m, path)

		if first, ok := seen[e.ModelID]; ok && e.ModelID != "" {
			m.addf(path+".model_id", "names the model of config[%d] again", first)
		} else {
			seen[e.ModelID] = i
		}

		if !realTime {
			continue
		}

		if e.Weight < 0 || e.Weight > 100 {
			m.addf(path+".weight", "must be 0 to 100, got %d", e.Weight)

			continue
		}

		sum += e.Weight
	}

	if realTime && len(s.Entries) > 0 && sum != 100 {
		m.addf("config", "weights must sum to 100, they sum to %d", sum)
	}
}

func (e *Entry) validate(m *mistakes, path string) {
	if e.ModelID == "" {
		m.addf(path+".model_id", "is required")
	}

	if e.InstanceCount < 1 || e.InstanceCount > MaxInstanceCount {
		m.addf(path+".instance_count", "must be 1 to %d, got %d", MaxInstanceCount, e.InstanceCount)
	}

	e.validateSpecification(m, path)

	if len(e.Envs) > MaxEnvs {
		m.addf(path+".envs", "must have at most %d members, has %d", MaxEnvs, len(e.Envs))
	} else {
		for _, k := range sortedKeys(e.Envs) {
			if msg := envName(k); msg != "" {
				m.addf(member(path+".envs", k), "%s", msg)
			} else if v := e.Envs[k]; len(v) > maxText || strings.ContainsRune(v, 0) {
				m.addf(member(path+".envs", k), "must have at most %d bytes and no NUL character", maxText)
			}
		}
	}

	if e.DeployTimeoutSeconds < 0 || e.DeployTimeoutSeconds > MaxDeploySeconds {
		m.addf(path+".deploy_timeout_in_seconds", "must be 0 to %d, got %d", MaxDeploySeconds, e.DeployTimeoutSeconds)
	}

	properties := path + ".additional_properties"
	surge := share(m, properties+".max_surge", e.MaxSurge)
	unavailable := share(m, properties+".max_unavailable", e.MaxUnavailable)

	if surge && unavailable && e.MaxSurge == 0 && e.MaxUnavailable == 0 {
		m.addf(properties, "max_surge and max_unavailable must not both be 0")
	}

	if e.TerminationGraceSeconds < 0 || e.TerminationGraceSeconds > MaxGraceSeconds {
		m.addf(properties+".termination_grace_period_seconds", "must be 0 to %d, got %d",
			MaxGraceSeconds, e.TerminationGraceSeconds)
	}
}

func (e *Entry) validateSpecification(m *mistakes, path string) {
	const custom = "custom"

	switch {
	case e.Specification == "":
		m.addf(path+".specification", "is required")
	case len(e.Specification) > 128:
		m.addf(path+".specification", "must have at most 128 bytes, has %d", len(e.Specification))
	case e.Specification == custom && e.CustomSpec == nil:
		m.addf(path+".custom_spec", "is required for specification custom")
	case e.Specification != custom && e.CustomSpec != nil:
		m.addf(path+".custom_spec", "is for specification custom only")
	}

	c := e.CustomSpec
	if c == nil {
		return
	}

	if !(c.CPU >= 0.01 && c.CPU <= 4096) {
		m.addf(path+".custom_spec.cpu", "must be 0.01 to 4096, got %g", c.CPU)
	}

	if c.Memory < 1 || c.Memory > 1<<30 {
		m.addf(path+".custom_spec.memory", "must be 1 to %d MB, got %d", 1<<30, c.Memory)
	}

	if !(c.GPU >= 0 && c.GPU <= 1024) {
		m.addf(path+".custom_spec.gpu", "must be 0 to 1024, got %g", c.GPU)
	}
}

// share checks a count or a fraction of instances: a fraction below 1, a whole number from 1.
func share(m *mistakes, path string, v float64) bool {
	if v >= 0 && (v < 1 || v == math.Trunc(v) && v <= MaxInstanceCount) {
		return true
	}

	m.addf(path, "must be a fraction below 1 or a whole number up to %d, got %g", MaxInstanceCount, v)

	return false
}

func validateTags(m *mistakes, tags []Tag) {
	if len(tags) > MaxTags {
		m.addf("tags", "must have at most %d elements, has %d", MaxTags, len(tags))

		return
	}

	seen := make(map[string]bool, len(tags))

	for i, t := range tags {
		path := element("tags", i)
		m.add(path+".key", ValidateTagKey(t.Key))
		m.add(path+".value", ValidateTagValue(t.Value))

		if seen[t.Key] {
			m.addf(path+".key", "is given twice")
		}

		seen[t.Key] = true
	}
}

// ValidateTagKey accepts 1 to 128 letters, digits, spaces and _ . : = + - @, without spaces at
// the ends and without the prefix _sys_.
func ValidateTagKey(key string) error {
	if n := utf8.RuneCountInString(key); n < 1 || n > 128 {
		return errors.New("must have 1 to 128 characters")
	}

	if strings.TrimSpace(key) != key || strings.HasPrefix(key, "_sys_") {
		return errors.New("must not start or end with a space, nor start with _sys_")
	}

	return tagText(key, "_.:=+-@")
}

// ValidateTagValue accepts up to 255 letters, digits, spaces and _ . : / = + - @.
func ValidateTagValue(value string) error {
	if utf8.RuneCountInString(value) > 255 {
		return errors.New("must have at most 255 characters")
	}

	return tagText(value, "_.:/=+-@")
}

func tagText(s, marks string) error {
	if !utf8.ValidString(s) {
		return errors.New("must be valid UTF-8")
	}

	for _, r := range s {
		if !unicode.In(r, unicode.L, unicode.Z, unicode.N) && !strings.ContainsRune(marks, r) {
			return fmt.Errorf("must hold only letters, digits, spaces and %s, has %q", marks, r)
		}
	}

	return nil
}

func validateSchedule(m *mistakes, schedule []Period) {
	if len(schedule) > 1 {
		m.addf("schedule", "must have at most one element, has %d", len(schedule))

		return
	}

	for i, p := range schedule {
		path := element("schedule", i)

		if p.Type != "stop" {
			m.addf(path+".type", "must be stop, got %q", shorten(p.Type))
		}

		switch p.TimeUnit {
		case "DAYS", "HOURS", "MINUTES":
		default:
			m.addf(path+".time_unit", "must be DAYS, HOURS or MINUTES, got %q", shorten(p.TimeUnit))
		}

		if p.Duration < 1 || p.Duration > 1_000_000 {
			m.addf(path+".duration", "must be 1 to 1000000, got %d", p.Duration)
		}
	}
}

package platform

import (
	"slices"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/codec/imaging"
	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/runtime/repo"
	"github.com/sluice-gateway/sluice/spec"
)

// DefaultMaxImages is the number of pictures in one request when a package sets none.
const DefaultMaxImages = 64

// Model is what a version accepts and answers under POST /.
type Model struct {
	meta      *repo.Meta
	pictures  map[int]*imaging.Pipeline // by input
	fields    map[string]int            // field name -> input
	answers   []answer
	maxImages int
}

// answer is one post-processing step.
type answer struct {
	spec.Postprocess
	output int
}

// Compile checks the pre- and post-processing of a version against its tensors.
func Compile(meta *repo.Meta, gate *imaging.Gate) (*Model, error) {
	m := &Model{meta: meta, pictures: map[int]*imaging.Pipeline{}, fields: map[string]int{}, maxImages: DefaultMaxImages}

	serving := meta.Config.Serving
	if serving == nil {
		serving = &spec.Serving{}
	}

	if serving.Limits.MaxImages > 0 {
		m.maxImages = serving.Limits.MaxImages
	}

	for i := range meta.Inputs {
		m.fields[meta.Inputs[i].Name] = i
	}

	for _, pre := range serving.Preprocess {
		if err := m.addPreprocess(pre, serving.Limits.MaxImagePixels, gate); err != nil {
			return nil, err
		}
	}

	if len(m.pictures) == 1 { // the usual names, unless they mean something else here
		for i := range m.pictures {
			for _, alias := range []string{"image", "images"} {
				if _, taken := m.fields[alias]; !taken {
					m.fields[alias] = i
				}
			}
		}
	}

	return m, m.addAnswers(serving.Postprocess)
}

func (m *Model) addPreprocess(pre spec.Preprocess, maxPixels int64, gate *imaging.Gate) error {
	i := slices.IndexFunc(m.meta.Inputs, func(in engine.Info) bool { return in.Name == pre.Input })
	if i < 0 {
		return fault.New(fault.ModelInvalid, "serving.preprocess: the model has no input %q", pre.Input)
	}

	if pre.Field != "" {
		m.fields[pre.Field] = i
	}

	if pre.Image == nil {
		return nil
	}

	p, err := imaging.New(*pre.Image, m.meta.Inputs[i].Type, maxPixels, gate)
	if err != nil {
		return err
	}

	if _, ok := m.rowShape(i, p.Shape()); !ok {
		return fault.New(fault.ModelInvalid, "serving.preprocess: pictures of shape %v do not fit input %q of shape %v",
			p.Shape(), pre.Input, m.meta.Inputs[i].Shape)
	}

	m.pictures[i] = p

	return nil
}

func (m *Model) addAnswers(post []spec.Postprocess) error {
	if len(post) == 0 {
		for i := range m.meta.Outputs {
			kind := "tensor"
			if len(m.meta.Labels) > 0 && len(m.meta.Outputs) == 1 {
				kind = "classification"
			}

			m.answers = append(m.answers, answer{spec.Postprocess{Output: m.meta.Outputs[i].Name, Kind: kind}, i})
		}

		return nil
	}

	for _, p := range post {
		i := slices.IndexFunc(m.meta.Outputs, func(out engine.Info) bool { return out.Name == p.Output })
		if i < 0 {
			return fault.New(fault.ModelInvalid, "serving.postprocess: the model has no output %q", p.Output)
		}

		if t := m.meta.Outputs[i].Type; t == engine.Bytes && (p.Kind == "classification" || p.Activation != "") {
			return fault.New(fault.ModelInvalid, "serving.postprocess: output %q has type %s, which has no scores", p.Output, t)
		}

		m.answers = append(m.answers, answer{p, i})
	}

	return nil
}

// Pictures maps the names of fields that take pictures to inputs; nil when there are none.
func (m *Model) Pictures() map[string]int {
	var out map[string]int

	for name, i := range m.fields {
		if m.pictures[i] != nil {
			if out == nil {
				out = map[string]int{}
			}

			out[name] = i
		}
	}

	return out
}

// Pipeline of an input; nil if it takes no pictures.
func (m *Model) Pipeline(input int) *imaging.Pipeline { return m.pictures[input] }

// Outputs names the outputs that answers are made from, for the batcher.
func (m *Model) Outputs() []string {
	var names []string

	for _, a := range m.answers {
		if !slices.Contains(names, a.Output) {
			names = append(names, a.Output)
		}
	}

	return names
}

// rowShape tells whether one row of the given shape fits input i, and what shape the tensor of
// that row alone has (without the batch dimension for a batchable model).
func (m *Model) rowShape(i int, dims []int64) ([]int64, bool) {
	want := m.meta.Inputs[i].Shape

	if m.meta.Batchable {
		if len(want) == 0 {
			return nil, false
		}

		return fit(want[1:], dims)
	}

	if shape, ok := fit(want, dims); ok {
		return shape, true
	}

	if len(want) > 0 && (want[0] == 1 || want[0] < 0) {
		if shape, ok := fit(want[1:], dims); ok {
			return append([]int64{1}, shape...), true
		}
	}

	return nil, false
}

// fit compares with what is wanted (-1: any). A scalar also fits a tensor of one element.
func fit(want, dims []int64) ([]int64, bool) {
	if len(dims) == 0 && len(want) > 0 {
		one := make([]int64, len(want))

		for i, d := range want {
			if d > 1 || d == 0 {
				return nil, false
			}

			one[i] = 1
		}

		return one, true
	}

	if len(want) != len(dims) {
		return nil, false
	}

	for i, d := range want {
		if d >= 0 && d != dims[i] {
			return nil, false
		}
	}

	return dims, true
}

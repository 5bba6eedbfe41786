package oip

import "github.com/pellucid/pellucid/engine"

// ServerMetadata is the answer of GET /v2.
type ServerMetadata struct {
	Name       string   `json:"name"`
	Version    string   `json:"version"`
	Extensions []string `json:"extensions"`
}

// ModelMetadata is the answer of GET /v2/models/{model}.
type ModelMetadata struct {
	Name       string            `json:"name"`
	Versions   []string          `json:"versions,omitempty"`
	Platform   string            `json:"platform"`
	Inputs     []TensorMetadata  `json:"inputs"`
	Outputs    []TensorMetadata  `json:"outputs"`
	Properties map[string]string `json:"properties,omitempty"`
}

// TensorMetadata describes one input or output; -1 is a dimension that varies.
type TensorMetadata struct {
	Name     string `json:"name"`
	Datatype string `json:"datatype"`
	Shape    []int  `json:"shape"`
}

// Describe turns the engine's specs into the protocol's.
func Describe(specs []engine.Spec) []TensorMetadata {
	out := make([]TensorMetadata, len(specs))
	for i, s := range specs {
		shape := s.Shape
		if shape == nil {
			shape = []int{}
		}
		out[i] = TensorMetadata{Name: s.Name, Datatype: s.DType.String(), Shape: shape}
	}
	return out
}

// Specs turns the protocol's descriptions into the engine's, refusing names that
// are empty or there twice, unknown types and impossible shapes.
func Specs(tensors []TensorMetadata) ([]engine.Spec, error) {
	out := make([]engine.Spec, 0, len(tensors))
	seen := make(map[string]bool, len(tensors))
	for _, t := range tensors {
		d, ok := engine.ParseDType(t.Datatype)
		switch {
		case t.Name == "":
			return nil, refuse("a tensor without a name")
		case seen[t.Name]:
			return nil, refuse("tensor %q is there twice", clip(t.Name))
		case !ok:
			return nil, refuse("tensor %q: unknown datatype %q", clip(t.Name), clip(t.Datatype))
		case len(t.Shape) > maxRank:
			return nil, refuse("tensor %q: its shape has more than %d dimensions", clip(t.Name), maxRank)
		}
		for _, n := range t.Shape {
			if n < -1 {
				return nil, refuse("tensor %q: its shape has a dimension below -1", clip(t.Name))
			}
		}
		seen[t.Name] = true
		out = append(out, engine.Spec{Name: t.Name, DType: d, Shape: t.Shape})
	}
	return out, nil
}

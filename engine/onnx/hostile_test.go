package onnx

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"google.golang.org/protobuf/encoding/protowire"
)

// message builds a protobuf message from field number and payload pairs.
func message(parts ...any) []byte {
	var b []byte
	for i := 0; i < len(parts); i += 2 {
		id := protowire.Number(parts[i].(int))
		switch v := parts[i+1].(type) {
		case int:
			b = protowire.AppendTag(b, id, protowire.VarintType)
			b = protowire.AppendVarint(b, uint64(v))
		case string:
			b = protowire.AppendTag(b, id, protowire.BytesType)
			b = protowire.AppendString(b, v)
		case []byte:
			b = protowire.AppendTag(b, id, protowire.BytesType)
			b = protowire.AppendBytes(b, v)
		}
	}
	return b
}

func floatValue(name string, dims ...int) []byte {
	var shape []byte
	for _, d := range dims {
		shape = append(shape, message(1, message(1, d))...)
	}
	return message(1, name, 2, message(1, message(1, 1, 2, shape)))
}

func modelOf(graph ...any) []byte {
	return message(1, 8, 8, message(1, "", 2, 17), 7, message(graph...))
}

func node(op string, in, out string) []byte { return message(1, in, 2, out, 4, op) }

func TestHostileFiles(t *testing.T) {
	x := floatValue("x", 2)
	tests := map[string]struct {
		data []byte
		want error
		text string
	}{
		"empty":              {nil, engine.ErrCorrupt, "no graph"},
		"truncated":          {modelOf(11, x, 1, node("Relu", "x", "y"), 12, floatValue("y"))[:20], engine.ErrCorrupt, "truncated"},
		"cycle":              {modelOf(11, x, 1, node("Relu", "b", "a"), 1, node("Relu", "a", "b"), 12, floatValue("b")), engine.ErrCorrupt, "cycle"},
		"missing value":      {modelOf(11, x, 1, node("Relu", "w", "y"), 12, floatValue("y")), engine.ErrCorrupt, `"w"`},
		"duplicate output":   {modelOf(11, x, 1, node("Relu", "x", "y"), 1, node("Tanh", "x", "y"), 12, floatValue("y")), engine.ErrCorrupt, "twice"},
		"output over input":  {modelOf(11, x, 1, node("Relu", "x", "x"), 12, floatValue("x")), engine.ErrCorrupt, ""},
		"huge tensor":        {modelOf(11, x, 5, message(1, 1<<40, 1, 1<<40, 2, 1, 8, "w", 9, "abcd"), 12, floatValue("x")), engine.ErrCorrupt, `"w"`},
		"negative dimension": {modelOf(11, x, 5, message(1, -3, 2, 1, 8, "w", 9, "abcd"), 12, floatValue("x")), engine.ErrCorrupt, `"w"`},
		"short data":         {modelOf(11, x, 5, message(1, 5, 2, 1, 8, "w", 9, "abcd"), 12, floatValue("x")), engine.ErrCorrupt, `"w"`},
		"escaping path":      {modelOf(11, x, 5, message(1, 1, 2, 1, 8, "w", 14, 1, 13, message(1, "location", 2, "../../etc/passwd")), 12, floatValue("x")), engine.ErrCorrupt, "folder"},
		"deep nesting":       {modelOf(11, x, 1, message(1, "x", 2, "y", 4, "If", 5, nested(5000)), 12, floatValue("y")), nil, "If"},
		"unknown operator":   {modelOf(11, x, 1, node("Frobnicate", "x", "y"), 12, floatValue("y")), nil, "Frobnicate"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Read(tt.data, t.TempDir())
			if err == nil || !strings.Contains(err.Error(), tt.text) {
				t.Fatalf("error %v, want one about %q", err, tt.text)
			}
			var u *engine.UnsupportedError
			if tt.want != nil && !errors.Is(err, tt.want) || tt.want == nil && !errors.As(err, &u) {
				t.Fatalf("error %v has the wrong kind", err)
			}
		})
	}
}

// nested is an attribute whose graph holds a node whose attribute holds a graph.
func nested(depth int) []byte {
	b := message(1, "then_branch", 20, 5)
	for range depth {
		b = message(1, "then_branch", 20, 5, 6, message(1, message(4, "If", 5, b)))
	}
	return b
}

// TestChainOfConditions: exporters write one as an If within the other.
func TestChainOfConditions(t *testing.T) {
	body := message(1, node("Abs", "x", "y"), 12, floatValue("y", 1))
	for range maxNesting {
		either := message(1, node("Neg", "x", "y"), 12, floatValue("y", 1))
		body = message(1, message(1, "c", 2, "y", 4, "If", 5, message(1, "then_branch", 20, 5, 6, either), 5, message(1, "else_branch", 20, 5, 6, body)), 12, floatValue("y", 1))
	}
	whole := slices.Concat(message(11, floatValue("x", 1), 1, message(1, "x", 1, "x", 2, "c", 4, "Greater")), body)
	m, err := Read(message(1, 8, 8, message(1, "", 2, 17), 7, whole), "")
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.NewSession(engine.SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Run(t.Context(), engine.Values{{Name: "x", Tensor: must(engine.Of([]float32{-3}, 1))}}, nil)
	if err != nil || engine.Data[float32](out[0].Tensor)[0] != 3 {
		t.Errorf("%v, %v", out, err)
	}
}

func TestMemoryLimit(t *testing.T) {
	m, err := Read(modelOf(11, floatValue("x", 4), 1, node("Relu", "x", "y"), 12, floatValue("y", 4)), "")
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.NewSession(engine.SessionOptions{MaxBytes: 8})
	if err != nil {
		t.Fatal(err)
	}
	in := engine.Values{{Name: "x", Tensor: must(engine.Of(make([]float32, 4), 4))}}
	if _, err := s.Run(t.Context(), in, nil); !errors.Is(err, engine.ErrTooLarge) {
		t.Fatalf("error %v, want ErrTooLarge", err)
	}
}

func FuzzRead(f *testing.F) {
	for _, name := range []string{"sklearn.zip", "torch.zip"} {
		for _, files := range archive(f, name) {
			if b := files["model.onnx"]; len(b) < 8<<10 {
				f.Add(b)
			}
		}
	}
	for _, files := range nodeArchive(f) {
		if b := files["model.onnx"]; len(b) < 2<<10 {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Read(data, "")
		if err != nil {
			return
		}
		var in engine.Values
		for _, s := range m.Info().Inputs {
			shape := make([]int, len(s.Shape))
			for i, d := range s.Shape {
				shape[i] = min(max(d, 2), 64)
			}
			if n, err := engine.Elements(shape); err != nil || n > 1<<16 {
				return
			}
			v, err := example(s.DType, shape)
			if err != nil {
				return
			}
			in = append(in, engine.Named{Name: s.Name, Tensor: v})
		}
		s, err := m.NewSession(engine.SessionOptions{MaxBytes: 1 << 22})
		if err != nil {
			return
		}
		out, err := s.Run(t.Context(), in, nil)
		if err != nil {
			return
		}
		differentiate(t, s, in, out)
	})
}

// example is a value of an input's type.
func example(d engine.DType, shape []int) (*engine.Tensor, error) {
	switch d {
	case engine.Nothing:
		return engine.NewNothing(), nil
	case engine.Sequence:
		item, err := engine.New(engine.Float32, 2, 3)
		return engine.NewSequence([]*engine.Tensor{item, item}), err
	}
	return engine.New(d, shape...)
}

// differentiate asks for the gradient of every float output by every float input;
// it may fail, but not panic.
func differentiate(t *testing.T, s engine.Session, in, out engine.Values) {
	d, ok := s.(engine.Differentiator)
	if !ok {
		t.Fatal("a session that does not differentiate")
	}
	var wrt []string
	for _, v := range in {
		if v.Tensor.DType() == engine.Float32 || v.Tensor.DType() == engine.Float64 {
			wrt = append(wrt, v.Name)
		}
	}
	for _, v := range out {
		target := d.Logit(engine.Target{Name: v.Name})
		if g, err := d.Gradient(t.Context(), in, target, wrt); err == nil && len(g.Inputs) != len(wrt) {
			t.Fatalf("%d gradients of %d inputs", len(g.Inputs), len(wrt))
		}
	}
}
